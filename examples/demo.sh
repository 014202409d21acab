#!/bin/sh
# The main job on the model in examples/demo: inspect, pack, quantize to 8 and 4 bits, verify each against the original.
set -eu
cd "$(dirname "$0")/.."
quire=${QUIRE:-build/bin/quire}
out=${OUT:-build/demo}
text=examples/demo.eval.txt
mkdir -p "$out"

step() { printf '\n\033[1m$ %s\033[0m\n' "$*" | sed "$plain"; "$@"; }
if [ -t 1 ]; then plain=; else plain='s/\x1b\[[0-9]*m//g'; fi

step "$quire" inspect examples/demo
step "$quire" convert examples/demo -o "$out/demo.quire" --compress --force
for scheme in Q8_0 Q4_K_M int4-g64; do
	step "$quire" quantize examples/demo -o "$out/demo-$scheme.quire" --scheme "$scheme" --force
done

echo; echo 'The first 100 windows of the text, each model against the original:'
printf '\n%-12s %10s %8s   %-19s %-23s %s\n' model bytes bits perplexity 'mean KL' 'same top token'
value() { sed -n 's/.*"'"$2"'": *\([^,]*\).*/\1/p' "$1" | head -n 1; }
row() { # NAME FILE BYTES
	"$quire" verify "$2" --against examples/demo --data "$text" --windows 100 --json -q >"$out/verify.json"
	"$quire" inspect "$2" --json -q >"$out/inspect.json"
	printf '%-12s %10d %8.2f   %7.4f +/- %.4f  %.6f +/- %.6f   %.2f %%\n' "$1" "$3" \
		"$(value "$out/inspect.json" bits_per_weight)" \
		"$(value "$out/verify.json" perplexity)" "$(value "$out/verify.json" perplexity_error)" \
		"$(value "$out/verify.json" kl_mean)" "$(value "$out/verify.json" kl_mean_error)" \
		"$(value "$out/verify.json" top1 | awk '{ print 100 * $1 }')"
}
row original examples/demo "$(wc -c <examples/demo/model.safetensors)"
for name in demo demo-Q8_0 demo-Q4_K_M demo-int4-g64; do
	row "$name" "$out/$name.quire" "$(wc -c <"$out/$name.quire")"
done

for prompt in "Once upon a time" "One day"; do
	step "$quire" generate "$out/demo-Q4_K_M.quire" "$prompt" --tokens 60 --seed 1
	echo
done
