#!/usr/bin/env bash
# Time against the number of tensors: a mixture of experts has 100,000. Ten times as many should take ten times as long.
set -u
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
model() { # N: a safetensors file of N small matrices
	awk -v n="$1" 'BEGIN {
		printf "{"
		for (i = 0; i < n; i++)
			printf "%s\"model.layers.%d.mlp.experts.%d.gate_proj.weight\":{\"dtype\":\"F16\",\"shape\":[1,32],\"data_offsets\":[%d,%d]}",
				i ? "," : "", i / 128, i % 128, i * 64, i * 64 + 64
		printf "}" }' >"$d/header"
	local size=$(stat -c %s "$d/header") i
	{
		for ((i = 0; i < 8; i++)); do printf "\\x$(printf %02x $((size >> 8 * i & 255)))"; done
		cat "$d/header"
		head -c $(($1 * 64)) /dev/zero
	} >"$d/m.safetensors"
}
echo '{"model_type": "experts"}' >"$d/config.json"
took() { # LABEL COMMAND...
	local start=$(date +%s%N) label=$1
	shift
	"$@" >/dev/null 2>"$d/log" || { cat "$d/log"; exit 1; }
	printf '%8d tensors  %-28s %6d ms\n' "$n" "$label" $((($(date +%s%N) - start) / 1000000))
}
for n in 10000 40000 100000; do
	model "$n"
	took "inspect" "$QUIRE" inspect "$d/m.safetensors"
	took "convert to safetensors" "$QUIRE" convert "$d/m.safetensors" -o "$d/o.safetensors" -q -f
	took "convert to .quire" "$QUIRE" convert "$d/m.safetensors" -o "$d/o.quire" -q -f
	took "inspect --check" "$QUIRE" inspect --check "$d/o.quire"
	took "quantize --dry-run" "$QUIRE" quantize "$d/m.safetensors" -s q8_0 --dry-run
	took "quantize to .quire" "$QUIRE" quantize "$d/m.safetensors" -s q8_0 -o "$d/o.quire" -q -f
	took "quantize to a folder" "$QUIRE" quantize "$d/m.safetensors" -s int8-g32 -o "$d/o$n" -q -f
	took "inspect the folder" "$QUIRE" inspect "$d/o$n"
done
