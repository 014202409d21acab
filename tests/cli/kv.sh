# A KV cache in a codec: smaller, its damage measured, and what cannot be is refused.
. "$(dirname "$0")/lib.sh"
prompt="There was once a child called"
text=$ROOT/examples/demo.eval.txt
kl() { json "$T/out" kl_mean; }
judge() { "$QUIRE" verify "$DEMO" --data "$text" --ctx 256 --chunks 4 --against "$DEMO" --json "$@" >"$T/out" 2>"$T/err"; }

judge
is "without: no damage" "$(kl)" 0
last=0
for codec in f16 q8_0 q4_0; do
	judge --kv-cache $codec
	is "$codec: more damage than before it" "$(awk -v a="$(kl)" -v b=$last 'BEGIN { print (a > b) ? "yes" : "no: " a " after " b }')" yes
	last=$(kl)
done
is "q4_0: not too much" "$(awk -v a="$last" 'BEGIN { print (a < 0.01) ? "yes" : a }')" yes
judge --kv-cache q8_0 --kv-cache-v q4_0
is "values alone in 4 bits: less than both" "$(awk -v a="$(kl)" -v b="$last" 'BEGIN { print (a < b) ? "yes" : a }')" yes
prints "--json names the codecs" '"kv_cache_v": "q4_0"'

bytes() { "$QUIRE" generate "$DEMO" "$prompt" --tokens 20 --json "$@" >"$T/out"; json "$T/out" kv_cache_bytes; }
full=$(bytes)
is "f16: half the bytes" "$(($(bytes --kv-cache f16) * 2))" "$full"
is "q8_0: 34 bytes for 128" "$(($(bytes --kv-cache q8_0) * 128))" $((full * 34))
is "q8_0 and q4_0" "$(($(bytes --kv-cache q8_0 --kv-cache-v q4_0) * 256))" $((full * 52))
is "f16: the same text" "$("$QUIRE" generate "$DEMO" "$prompt" --tokens 20 --kv-cache f16)" "$("$QUIRE" generate "$DEMO" "$prompt" --tokens 20)"

exits 2 "unknown codec" "$QUIRE" generate "$DEMO" x --kv-cache q99
says "unknown codec: says which" "unknown codec 'q99' for the KV cache"
exits 5 "blocks that do not divide a head" "$QUIRE" verify "$DEMO" --data "$text" --kv-cache q4_k
says "blocks: says why" "heads of 32 elements are not whole blocks of 256"
exits 2 "rotation without a codec" "$QUIRE" verify "$DEMO" --data "$text" --kv-rotate
done_testing
