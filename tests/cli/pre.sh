#!/usr/bin/env bash
# Pre-tokenizers on the way to GGUF and back: names, what is said, what is refused.
. "$(dirname "$0")/lib.sh"
base=$ROOT/tests/golden/pre/base.json
mkdir "$T/m" && cp "$DEMO"/{config.json,model.safetensors} "$T/m/" && chmod u+w "$T/m"/*
split() { printf '{"type":"Split","pattern":{"Regex":"%s"},"behavior":"Isolated","invert":false}' "$1"; }
bytes='{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}'
words='{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}'
# model PRE NORMALIZER MODEL-EDIT: the demo with the small vocabulary
model() {
	{ printf '{"pre_tokenizer":%s,' "$1"; tail -c +2 "$base"; } | sed "s/\"normalizer\":null/\"normalizer\":$2/; ${3:-}" >"$T/m/tokenizer.json"
	echo "{\"add_bos_token\":false}" >"$T/m/tokenizer_config.json"
}
to_gguf() { succeeds "$1" "$QUIRE" convert "$T/m" -f -o "$T/m.gguf"; }
pre_of() { "$QUIRE" inspect "$T/m.gguf" | sed -n 's/.*tokenizer\.ggml\.pre = //p'; }
same_ids() {
	is "$1: the same ids" "$("$QUIRE" tokenize "$T/m.gguf" --file "$ROOT/tests/golden/pre/text.txt")" \
		"$("$QUIRE" tokenize "$T/m" --file "$ROOT/tests/golden/pre/text.txt")"
}

model "$words" null
to_gguf "plain"
is "plain: gpt-2" "$(pre_of)" gpt-2
is "plain: no warning" "$(grep -c warning "$T/err")" 0
same_ids plain

# normalizers: said, and kept for quire
for form in '{"type":"NFC"}' '{"type":"NFKC"}' '{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Lowercase"}]}'; do
	model "$words" "$form"
	what=$(grep -oE 'NFC|NFKC|Lowercase' <<<"$form" | paste -sd, | sed 's/,/, /g')
	to_gguf "$what"
	says "$what: said" "^quire: warning: normalizer $what: GGUF has no key for it and llama.cpp does not apply it"
	same_ids "$what"
	succeeds "$what: back to a folder" "$QUIRE" convert "$T/m.gguf" -o "$T/back-${what// /}"
	is "$what: in the folder" "$(grep -o '"normalizer":{[^}]*}' "$T/back-${what// /}/tokenizer.json")" "$(grep -o '"normalizer":{[^}]*}' "$T/m/tokenizer.json")"
done
qwen='(?i:'"'s|'t|'re|'ve|'m|'ll|'d"')|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+'
qwen='{"type":"Sequence","pretokenizers":['"$(split "${qwen//\\\\/\\}"),$bytes"']}'
model "$qwen" '{"type":"NFC"}'
to_gguf "qwen2 with NFC"
is "qwen2 with NFC: its name" "$(pre_of)" qwen2
is "qwen2 with NFC: is what the name means" "$(grep -c warning "$T/err")" 0
same_ids "qwen2 with NFC"
model "$qwen" null
to_gguf "qwen2 without NFC"
same_ids "qwen2 without NFC"

# pieces that merges do not make
model "$words" null 's/"ignore_merges":false/"ignore_merges":true/; s/"merges":\["[^"]*","[^"]*",/"merges":[/'
to_gguf "pieces out of reach"
says "pieces out of reach: said" "^quire: warning: [0-9]+ pieces of the vocabulary, the first '.*', are not what merges make"
model "$words" null 's/"merges":\["[^"]*","[^"]*",/"merges":[/'
to_gguf "pieces out of reach that nothing takes whole"
is "pieces out of reach that nothing takes whole: no warning" "$(grep -c warning "$T/err")" 0

# other spellings, and none that has a name
model '{"type":"Sequence","pretokenizers":['"$(split '\\p{N}'),$words"']}' null
to_gguf "another spelling"
is "another spelling: its name" "$(pre_of)" smollm
says "another spelling: said" "spelled like none that GGUF has a name for, but cuts [0-9]+ texts that tell them apart as 'smollm'"
model '{"type":"Sequence","pretokenizers":['"$(split '\\p{N}{1,2}'),$words"']}' null
exits 5 "no name" "$QUIRE" convert "$T/m" -f -o "$T/m.gguf"
says "no name: what to do" "GGUF has no name for this pre-tokenizer.*\.quire and Hugging Face folders keep it"
succeeds "no name: .quire" "$QUIRE" convert "$T/m" -o "$T/m.quire"
model "${words/\"add_prefix_space\":false/\"add_prefix_space\":true}" null
to_gguf "a space in front"
says "a space in front: said" "add_prefix_space: the tokenizer puts a space in front of text, llama.cpp does not"
same_ids "a space in front"
done_testing
