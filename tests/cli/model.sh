# A model that is not what it says: every command that reads it says so, none writes anything.
. "$(dirname "$0")/lib.sh"
export OMP_WAIT_POLICY=passive
text=$ROOT/examples/demo.calib.txt
mkdir "$T/to"
# everywhere NAME MODEL PATTERN: exit 3 and the reason, from every command
everywhere() {
	local c
	for c in "convert -o $T/to/x.quire" "convert -o $T/to/x.gguf" "convert -o $T/to/dir" "quantize -s q8_0 -o $T/to/x.quire" \
		"fold --kv-heads 4 --method pca --samples 4 -d $text -o $T/to/x.quire" "calibrate -d $text --samples 4 -o $T/to/x.stats" \
		"inspect --check" "verify --data $text --chunks 1"; do
		exits 3 "$1: ${c%% *}" "$QUIRE" ${c%% *} "$2" ${c#* }
		says "$1: ${c%% *} says why" "$3"
	done
	is "$1: nothing is written" "$(ls -A "$T/to")" ""
}
# changed NAME FROM TO: the demo with another config.json
changed() {
	mkdir "$T/$1" && cp "$DEMO"/* "$T/$1/" && chmod -R u+w "$T/$1"
	sed "s/$2/$3/" "$DEMO/config.json" >"$T/$1/config.json"
}
changed wide '"intermediate_size": *[0-9]*' '"intermediate_size": 448'
everywhere 'another width' "$T/wide" 'wrong shapes'
changed deep '"num_hidden_layers": *[0-9]*' '"num_hidden_layers": 9'
everywhere 'more layers' "$T/deep" 'missing tensors'
changed small '"vocab_size": *[0-9]*' '"vocab_size": 1000'
everywhere 'a smaller vocabulary' "$T/small" 'wrong shapes|the tokenizer has 1024 tokens'

# GGUF: what llama.cpp's loader needs, by type
"$QUIRE" convert "$DEMO" -o "$T/good.gguf" -q
# gguf NAME FROM TO PATTERN: bytes of the same length changed
gguf() {
	LC_ALL=C sed "s/$2/$3/" "$T/good.gguf" >"$T/bad.gguf"
	exits 3 "GGUF, $1" "$QUIRE" convert "$T/bad.gguf" -o "$T/to/x.quire"
	says "GGUF, $1: says why" "$4"
	exits 3 "GGUF, $1: inspect" "$QUIRE" inspect "$T/bad.gguf"
}
gguf 'no context' 'llama.context_length' 'llama.context_lengtX' "key 'llama.context_length' is missing"
gguf 'no epsilon' 'layer_norm_rms_epsilon' 'layer_norm_rms_epsiloX' "rms_epsilon' is missing"
gguf 'no block count' 'llama.block_count' 'llama.block_counX' "block_count' is missing"
gguf 'a count that is a float' 'llama.block_count\x04' 'llama.block_count\x06' "block_count' is not a whole number"
gguf 'a tokenizer without a model' 'tokenizer.ggml.model' 'tokenizer.ggml.modeX' "tokenizer.ggml.model' is missing"
gguf 'a vocabulary without tokens' 'tokenizer.ggml.tokens' 'tokenizer.ggml.tokenX' "tokenizer.ggml.tokens' is missing"
cp "$T/good.gguf" "$T/bad.gguf" && printf 'more' >>"$T/bad.gguf"
exits 3 'GGUF, bytes at the end' "$QUIRE" convert "$T/bad.gguf" -o "$T/to/x.quire"
says 'GGUF, bytes at the end: says why' 'bytes follow the last of the'
is 'nothing is written' "$(ls -A "$T/to")" ""
done_testing
