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

done_testing
