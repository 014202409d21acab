#!/usr/bin/env bash
# Every family of tests/golden/families from its checkpoint to a quantized file with calibrated methods, and judged.
source "$(dirname "$0")/lib.sh"

for f in "$ROOT"/tests/golden/families/*.py; do
	m=$(basename "$f" .py)
	mkdir "$T/$m" && cp "$ROOT/tests/golden/model/$m/config.json" "$ROOT/tests/golden/model/$m/model.safetensors" "$T/$m/" &&
		cp "$ROOT/tests/golden/characters/tokenizer.json" "$T/$m/"
	succeeds "$m: statistics" "$QUIRE" calibrate "$T/$m" -d "$ROOT/examples/demo.calib.txt" -c 32 --windows 20 --collect full -q -o "$T/stats" -f
	for method in awq best; do
		succeeds "$m: $method" "$QUIRE" quantize "$T/$m" -s int4-g32 -m $method --stats "$T/stats" -q -o "$T/x.quire" -f
		succeeds "$m: $method, judged" "$QUIRE" verify "$T/x.quire" --against "$T/$m" -d "$ROOT/examples/demo.eval.txt" -c 32 -n 2 -q \
			--max-kl 0.5 --undecided pass
	done
done
done_testing
