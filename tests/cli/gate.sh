# Regressions planted into real models are caught by the gates that docs/ci.md gives; what did not change passes.
. "$(dirname "$0")/lib.sh"
limits="--max-kl 0.02 --max-kl-p99 0.3 --min-top1 0.93 --max-ppl-ratio 1.02"
is "the limits are those of docs/ci.md" "$(tr -d '\\\n' <"$ROOT/docs/ci.md" | tr -s ' ' | grep -c -- "$limits")" 1

# copy NAME: a copy of model $M in $T/NAME
copy() { rm -rf "${T:?}/$1" && mkdir "$T/$1" && cp "$M"/*.json "$M/model.safetensors" "$T/$1/" && chmod -R u+w "$T/$1"; }
# scale NAME TENSOR FACTOR: the copy NAME with the numbers of one bf16 tensor multiplied
scale() {
	local from to
	copy "$1"
	read -r from to < <(where "$M" "$2")
	# NaN, infinite and denormal numbers stay as they are
	printf "$(od -An -v -tu2 -w2 -j "$from" -N $((to - from)) "$M/model.safetensors" | awk -v by="$3" '{
		sign = int($1 / 32768); e = int($1 / 128) % 256; m = 128 + $1 % 128
		if (e > 0 && e < 254) {
			m = int(m * by + 0.5)
			if (m > 255) { m = int(m / 2 + 0.5); e++ }
		}
		low = m % 128 + e % 2 * 128
		printf "\\%03o\\%03o", low, sign * 128 + int(e / 2) }')" | dd of="$T/$1/model.safetensors" bs=64k seek="$from" oflag=seek_bytes conv=notrunc 2>/dev/null
}
# swap NAME TENSOR TENSOR: two names of the same shape exchanged in the header
swap() {
	copy "$1"
	LC_ALL=C sed "1,/\x00/ { s/$2/@@/g; s/$3/$2/g; s/@@/$3/g }" "$M/model.safetensors" >"$T/$1/model.safetensors"
	is "$name: $1: the same size" "$(wc -c <"$T/$1/model.safetensors")" "$(wc -c <"$M/model.safetensors")"
}
judge() { "$QUIRE" verify "$1" --data "$text" --baseline "$T/base" "${@:2}"; }
caught() { # WHAT MODEL GATE...
	exits 1 "$name: $1" judge "$2" "${@:3}"
	says "$name: $1: which gate, and how far" '^quire verify: --m[a-z0-9-]+: .* between .* limit .*: fail'
}

for name in demo english; do
	M=$SHARED/models/$name text=$SHARED/text/$name.eval.txt
	[ $name = demo ] && M=$DEMO text=$ROOT/examples/demo.eval.txt
	if [ ! -d "$M" ]; then
		skip "$name: planted regressions"
		continue
	fi
	succeeds "$name: a baseline" "$QUIRE" verify "$M" --data "$text" --ctx 256 --chunks 12 --save-baseline "$T/base" -q

	rm -rf "$T"/*.quire "$T"/*.gguf

	# what did not change
	copy same
	succeeds "$name: the same weights" judge "$T/same" --unchanged $limits
	prints "$name: the same weights: verdict" '^verdict +pass'
	succeeds "$name: the same weights, as GGUF" "$QUIRE" convert "$M" -o "$T/same.gguf" -q
	succeeds "$name: the same weights, as GGUF: verify" judge "$T/same.gguf" --unchanged
	succeeds "$name: other kernels, one thread" env QUIRE_CPU=scalar "$QUIRE" verify "$M" --data "$text" --baseline "$T/base" --unchanged --threads 1
	scale one model.layers.1.mlp.up_proj.weight 1
	if cmp -s "$M/model.safetensors" "$T/one/model.safetensors"; then ok "$name: scaled by 1: the same bytes"; else not_ok "$name: scaled by 1: the same bytes"; fi

	# one tensor, 2 % larger
	for t in norm layers.0.input_layernorm layers.2.self_attn.q_proj layers.2.self_attn.v_proj layers.3.self_attn.o_proj \
		layers.1.mlp.down_proj layers.4.mlp.gate_proj; do
		scale scaled model.$t.weight 1.02
		if cmp -s "$M/model.safetensors" "$T/scaled/model.safetensors"; then not_ok "$name: $t is scaled"; else ok "$name: $t is scaled"; fi
		caught "$t scaled by 1.02" "$T/scaled" --unchanged
	done

	# two tensors for each other: of a layer, of two layers
	swap swapped 'layers\.2\.self_attn\.q_proj' 'layers\.2\.self_attn\.k_proj'
	caught "a swapped pair of tensors" "$T/swapped" $limits
	caught "a swapped pair of tensors, unchanged" "$T/swapped" --unchanged
	swap exchanged 'layers\.1\.mlp\.down_proj' 'layers\.3\.mlp\.down_proj'
	caught "two layers' tensors swapped" "$T/exchanged" $limits

	# a layer at 2 bits in a model of 8, which by itself passes; its limit is twice its own bound, as docs/ci.md says
	succeeds "$name: quantize" "$QUIRE" quantize "$M" -o "$T/q8.quire" --scheme q8_0 -q
	succeeds "$name: 8 bits pass" judge "$T/q8.quire" $limits --json
	bound=$(grep -A3 '"kl_mean": {' "$T/out" | json /dev/stdin upper)
	twice=$(awk -v x="$bound" 'BEGIN { print 2 * x }')
	succeeds "$name: 8 bits pass at twice their bound" judge "$T/q8.quire" --max-kl "$twice"
	caught "8 bits are a change" "$T/q8.quire" --unchanged
	for two in q2_k int2-g32; do
		succeeds "$name: quantize, a layer to $two" "$QUIRE" quantize "$M" -o "$T/$two.quire" --scheme q8_0 --tensor "model.layers.2.*_proj.weight=$two" -q
		caught "one layer at 2 bits, $two" "$T/$two.quire" --max-kl "$twice"
	done

	# the quantized model that was accepted is a baseline as well: what is made again is the same, what is made of other weights is not
	succeeds "$name: accepted" "$QUIRE" verify "$T/q8.quire" --data "$text" --ctx 256 --chunks 12 --save-baseline "$T/base" -q
	"$QUIRE" quantize "$T/same" -o "$T/again.quire" --scheme q8_0 -q --threads 1
	succeeds "$name: quantized again" judge "$T/again.quire" --unchanged
	"$QUIRE" quantize "$T/scaled" -o "$T/other.quire" --scheme q8_0 -q
	caught "quantized from scaled weights" "$T/other.quire" --unchanged

	# a merge that the text uses, and the last one
	copy first
	sed 's/"▁ t", //' "$M/tokenizer.json" >"$T/first/tokenizer.json"
	copy last
	sed 's/, "[^",]* [^",]*"\(\],\{0,1\} *"byte_fallback\|\]}\)/\1/' "$M/tokenizer.json" >"$T/last/tokenizer.json"
	for which in first last; do
		if cmp -s "$M/tokenizer.json" "$T/$which/tokenizer.json"; then not_ok "$name: a merge is taken out"; else ok "$name: a merge is taken out"; fi
		exits 7 "$name: the $which merge is missing" judge "$T/$which" $limits
		says "$name: the $which merge is missing: reason" 'not comparable with .*: it was made with another tokenizer'
		exits 7 "$name: the $which merge is missing, no gates" judge "$T/$which"
		exits 7 "$name: the $which merge is missing, beside the model" "$QUIRE" verify "$T/$which" --against "$M" --data "$text" --ctx 256 --chunks 2 --unchanged
		says "$name: the $which merge is missing, beside the model: reason" 'tokenizers( differ|, though)'
	done
	exits 7 "$name: the first merge is missing: compare" "$QUIRE" compare "$M" "$T/first" --data "$text" --ctx 256 --chunks 2 --work "$T/work" -q
	says "$name: the first merge is missing: compare: reason" 'cut the text into different tokens'
done
done_testing
