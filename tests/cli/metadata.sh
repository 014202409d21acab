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
for x in llama-types mistral-types; do
	succeeds "keys that a class does not read: $x" "$QUIRE" convert "$MODEL/$x" -o "$T/$x.quire"
	says "keys that a class does not read: said, $x" "has layer_types, which ${x%-types} does not read, nor does transformers: 1 layers run"
done

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

# generation_config.json: end tokens and sampling settings
is "generation: from a GGUF" "$(tr -d ' \n' <"$T/keys/generation_config.json")" \
	'{"bos_token_id":1,"eos_token_id":[2,4],"do_sample":true,"temperature":0.6,"top_k":20,"top_p":0.95,"repetition_penalty":1.05}'
"$QUIRE" inspect "$T/keys.gguf" >"$T/out"
for x in 'tokenizer.ggml.eos_token_id = 2' 'tokenizer.ggml.eom_token_id = 4' 'general.sampling.temp = 0.6' 'general.sampling.top_k = 20' \
	'general.sampling.top_p = 0.95' 'general.sampling.penalty_repeat = 1.05'; do
	prints "generation: back: $x" "$x\$"
done
# "One day" goes on with " morning," (token 265 begins it): transformers ends at any token that this file lists
folder ends
id=$("$QUIRE" tokenize "$DEMO" "One day morning" | tr ' ' '\n' | sed -n 4p)
echo "{\"eos_token_id\": [2, $id]}" >"$T/ends/generation_config.json"
for x in ends ends.quire ends.gguf; do
	[ $x = ends ] || "$QUIRE" convert "$T/ends" -o "$T/$x" >/dev/null
	succeeds "generation: ends: $x" "$QUIRE" generate "$T/$x" "One day" --tokens 8 --json
	prints "generation: ends: at the first token of $x" '"tokens": 0'
	prints "generation: ends: by itself, $x" '"end": "eos"'
done

# what a GGUF is run otherwise
cp -r "$MODEL/mistral-window" "$T/window"
succeeds "a window in GGUF" "$QUIRE" convert "$T/window" -o "$T/window.gguf"
says "a window in GGUF: said" "warning: 2 of 2 layers have a sliding window of 9 tokens; llama.cpp gives llama full attention"
succeeds "a window elsewhere" "$QUIRE" convert "$T/window" -o "$T/window.quire"
is "a window elsewhere: no warning" "$(cat "$T/err")" ""

done_testing
