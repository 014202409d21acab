# inspect: what a checkpoint is, in text and JSON; damage is found.
. "$(dirname "$0")/lib.sh"

succeeds "demo" "$QUIRE" inspect "$DEMO"
prints "architecture" '^architecture  llama, 5 layers, hidden 256, feed-forward 512, vocabulary 1024 \(tied\)$'
prints "attention" '^attention     8 heads, 8 KV heads of 32, context 256$'
prints "parameters" '^parameters    3\.54M \(3541760\)$'
prints "tokenizer" '^tokenizer     SentencePiece BPE, 1024 pieces$'
prints "tensors" '^tensors       47, 6\.8 MiB, 16\.000 bits per weight$'
# 2 (K and V) x 5 layers x 8 heads x 32 x 2 bytes
prints "KV cache" '^KV cache      f16: 5\.0 KiB per token, 20\.0 MiB at 4096, 160\.0 MiB at 32768$'
is "no table unless asked" "$(grep -c 'mlp.up_proj' "$T/out")" 0

succeeds "KV options" "$QUIRE" inspect "$DEMO" --ctx 1000 --kv-type q8_0
prints "q8_0 takes 34/64 of f16" '^KV cache      q8_0: 2\.7 KiB per token, 2\.6 MiB at 1000, 85\.0 MiB at 32768$'
exits 2 "unknown KV codec" "$QUIRE" inspect "$DEMO" --kv-type q17
says "unknown KV codec: message" "unknown codec 'q17'"

succeeds "--json" "$QUIRE" inspect "$DEMO" --json
is "json: format" "$(json "$T/out" format)" hf
is "json: architecture" "$(json "$T/out" architecture)" llama
is "json: parameters" "$(json "$T/out" parameters)" 3541760
is "json: heads" "$(json "$T/out" kv_heads)" 8
is "json: bits" "$(json "$T/out" bits_per_weight)" 16
is "json: KV" "$(json "$T/out" bytes_per_token)" 5120
is "json: tensors" "$(json "$T/out" tensor_count)" 47

succeeds "--tensors" "$QUIRE" inspect "$DEMO" --tensors
prints "a row of the table" '^model\.layers\.3\.mlp\.down_proj\.weight +bf16 +\[256, 512\] +262144 +16\.000$'
is "a row per tensor" "$(grep -cE '^model\.' "$T/out")" 47

# statistics of tensors that are known exactly
header() { # TEXT: the length that safetensors puts in front
	printf "\\$(printf %o $((${#1} % 256)))\\$(printf %o $((${#1} / 256)))\\0\\0\\0\\0\\0\\0%s" "$1"
}
h='{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[24,28]}}'
{ header "$h"; printf '\0\0\0\0\0\0\200\77\0\0\0\300\0\0\100\100\0\0\200\77\0\0\0\0\200\77\0\300'; } >"$T/known.safetensors"
succeeds "a bare file" "$QUIRE" inspect "$T/known.safetensors" --stats
prints "no config" '^architecture  unknown \(no config\.json\)$'
prints "no tokenizer" '^tokenizer     none$'
# a = 0 1 -2 3 1 0: mean .5, deviation sqrt(15/6 - 1/4) = 1.5
prints "min max mean std absmax zeros" '^a +f32 +-2 +3 +0\.5 +1\.5 +3 +2 +0 +0$'
prints "bf16" '^b +bf16 +-2 +1 +-0\.5 +1\.5 +2 +0 +0 +0$'
succeeds "stats as json" "$QUIRE" inspect "$T/known.safetensors" --stats --json
near "json: mean" "$(json "$T/out" mean)" 0.5 1e-12
is "json: std" "$(json "$T/out" std)" 1.5
is "json: architecture of a bare file" "$(json "$T/out" architecture)" null

# a finding stands under the line that names the file, and does not name it again
mkdir "$T/un" && cp "$DEMO"/* "$T/un/"
sed -i 's/"model_type": *"llama"/"model_type": "unheard"/' "$T/un/config.json"
sed -i 's/"type": *"BPE"/"type": "Unigram"/' "$T/un/tokenizer.json"
succeeds "an unknown model" "$QUIRE" inspect "$T/un"
prints "an unknown model: what it is" '^architecture  config\.json: model_type "unheard" is not supported'
prints "an unknown model: its tokenizer" '^tokenizer     tokenizer model Unigram is not handled$'
is "an unknown model: named once" "$(grep -c "$T/un" "$T/out")" 1

# --check
succeeds "--check" "$QUIRE" inspect "$DEMO" --check
prints "--check: says what it did" '^check         .*every value|^check         .*all values are finite'
{ header "$h"; printf '\0\0\300\177\0\0\200\177\0\0\0\300\0\0\100\100\0\0\200\77\0\0\0\0\200\77\0\300'; } >"$T/nan.safetensors"
exits 3 "--check: NaN" "$QUIRE" inspect "$T/nan.safetensors" --check
says "--check: names the tensor" 'tensor a holds 1 NaN and 1 infinite values'
succeeds "NaN without --check is only counted" "$QUIRE" inspect "$T/nan.safetensors" --stats
prints "NaN and Inf counts" '^a +f32 +.* 1 +1$'
head -c 120 "$T/known.safetensors" >"$T/short.safetensors"
exits 3 "truncated" "$QUIRE" inspect "$T/short.safetensors"
says "truncated: names the file" "short\.safetensors"
: >"$T/empty.safetensors"
exits 3 "empty" "$QUIRE" inspect "$T/empty.safetensors"
mkdir "$T/nothing"
"$QUIRE" inspect "$T/nothing" >"$T/out" 2>"$T/err"
case $? in 3 | 4 | 5) ok "a folder without a model" ;; *) not_ok "a folder without a model: exit $?" ;; esac

if [ -d "$SHARED/models" ]; then
	succeeds "shards" "$QUIRE" inspect "$SHARED/models/tiny1m"
	prints "shards: all tensors" '^tensors       39, '
	succeeds "grouped heads" "$QUIRE" inspect "$SHARED/models/stories260K"
	prints "grouped heads: KV heads" '8 heads, 4 KV heads of 8'
else
	skip "shards: no shared models here"
fi
done_testing
