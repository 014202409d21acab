#!/usr/bin/env bash
# What a model is besides its tensors, on the way from one format to another: names, heads, keys, templates, end tokens.
. "$(dirname "$0")/lib.sh"
MODEL=$ROOT/tests/golden/model

# a head beside a tied embedding: transformers uses it when it differs, and so does every file that is written
for to in x.gguf x.quire x; do
	succeeds "another head than the tied embedding: $to" "$QUIRE" convert "$MODEL/llama-untied" -f -o "$T/untied-$to"
	says "another head than the tied embedding: said" "warning: .*llama-untied: config.json ties .* another head is stored; it is used"
	"$QUIRE" inspect "$T/untied-$to" --json >"$T/out"
	prints "another head than the tied embedding: untied in $to" '"tied": false'
done
succeeds "saved without prefix" "$QUIRE" convert "$MODEL/llama-bare" -o "$T/bare"
is "saved without prefix: no warning" "$(cat "$T/err")" ""
succeeds "saved without prefix: inspect" "$QUIRE" inspect "$T/bare"
prints "saved without prefix: without buffers" "^tensors +20,"
succeeds "saved buffers" "$QUIRE" inspect "$MODEL/llama-bare"
prints "saved buffers: named by inspect" "left out = 2 tensors"

# chat templates: in a folder's files, in its tokenizer_config.json, in GGUF (keys.gguf is by the reference writer)
KEYS=$ROOT/tests/golden/metadata/keys.gguf
folder() { mkdir "$T/$1" && cp "$DEMO"/* "$T/$1/" && chmod -R u+w "$T/$1"; }
folder files && mkdir "$T/files/additional_chat_templates"
printf 'D{{ x }}' >"$T/files/chat_template.jinja"
printf 'T\n' >"$T/files/additional_chat_templates/tool_use.jinja"
printf 'R' >"$T/files/additional_chat_templates/rag.jinja"
folder list
sed -i '1s/{/{"chat_template": [{"name": "default", "template": "D{{ x }}"}, {"name": "tool_use", "template": "T\\n"},\
 {"name": "rag", "template": "R"}],/' "$T/list/tokenizer_config.json"
folder json
echo '{"chat_template": "D{{ x }}"}' >"$T/json/chat_template.json"
for x in files list json; do
	succeeds "templates: $x to GGUF" "$QUIRE" convert "$T/$x" -o "$T/$x.gguf"
	succeeds "templates: $x to .quire" "$QUIRE" convert "$T/$x" -o "$T/$x.quire"
	succeeds "templates: $x, .quire to GGUF" "$QUIRE" convert "$T/$x.quire" -o "$T/$x-2.gguf"
	for g in "$T/$x.gguf" "$T/$x-2.gguf"; do
		"$QUIRE" inspect "$g" >"$T/out"
		prints "templates: $x, the main one" '^ *(metadata)? *tokenizer.chat_template = D\{\{ x \}\}$'
		[ $x = json ] && continue
		prints "templates: $x, tool_use" 'tokenizer.chat_template.tool_use = T'
		prints "templates: $x, rag" 'tokenizer.chat_template.rag = R'
		prints "templates: $x, names" 'tokenizer.chat_templates = 2 elements'
	done
done
for x in "$T/files" "$T/files.quire"; do
	rm -rf "$T/copy"
	succeeds "templates: folder below" "$QUIRE" convert "$x" -o "$T/copy"
	is "templates: the same files" "$(diff -r "$T/files/additional_chat_templates" "$T/copy/additional_chat_templates" && echo same)" same
done
succeeds "keys: GGUF to a folder" "$QUIRE" convert "$KEYS" -o "$T/keys"
says "keys: what it does not keep" "warning: keys of the GGUF .*general.name, general.license"
grep -q '"name": "tool_use"' "$T/keys/tokenizer_config.json" && ok "keys: templates in tokenizer_config.json" || not_ok "keys: templates in tokenizer_config.json"
succeeds "keys: and back" "$QUIRE" convert "$T/keys" -o "$T/keys.gguf"
succeeds "keys: and back: inspect" "$QUIRE" inspect "$T/keys.gguf"
prints "keys: and back: template" 'tokenizer.chat_template.tool_use = T'

done_testing
