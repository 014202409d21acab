#!/usr/bin/env bash
# Training of codes in families other than llama's: the KL on text that was not seen falls.
source "$(dirname "$0")/lib.sh"

# model NAME: a golden model with a tokenizer of single characters
model() {
	mkdir "$T/$1" && cp "$ROOT/tests/golden/model/$1/config.json" "$ROOT/tests/golden/model/$1/model.safetensors" "$T/$1/" &&
		cp "$ROOT/tests/golden/characters/tokenizer.json" "$T/$1/"
}
below() { if awk -v a="$2" -v b="$3" 'BEGIN { exit !(a != "" && b != "" && a > 0 && a < b) }'; then ok "$1"; else not_ok "$1 ($2, want less than $3)"; fi; }

for m in gemma2 gpt-neox mixtral; do
	model $m
	succeeds "$m: statistics" "$QUIRE" calibrate "$T/$m" -d "$ROOT/examples/demo.calib.txt" -c 32 --windows 400 --collect full -o "$T/stats" -f
	for passes in 0 3; do
		succeeds "$m: best, $passes passes" "$QUIRE" quantize "$T/$m" -s int2-g32 -m best --stats "$T/stats" --distill $passes -o "$T/$passes.quire" -f
		[ $passes = 0 ] || prints "$m: trained" "^training: [1-9] passes, [1-9][0-9]* of [0-9]+ codes moved"
		"$QUIRE" verify "$T/$passes.quire" --against "$T/$m" -d "$ROOT/examples/demo.eval.txt" -c 32 --chunks 40 --json >"$T/$passes.json"
	done
	kl=$(json "$T/0.json" kl_mean)
	below "$m: training lowers the KL on other text by a tenth" "$(json "$T/3.json" kl_mean)" "$(awk -v a="$kl" 'BEGIN { print .9 * a }')"
done
done_testing
