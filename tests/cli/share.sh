# fold --share-layers: a smaller cache in the running program, the damage it says, and what it refuses.
. "$(dirname "$0")/lib.sh"
calib=$ROOT/examples/demo.calib.txt
prompt="There was once a child called"
cache() { "$QUIRE" generate "$1" "$prompt" --tokens 8 --json "${@:2}" >"$T/g"; json "$T/g" kv_cache_bytes; }
fold() { "$QUIRE" fold "$DEMO" --data "$calib" --ctx 64 --samples 16 --steps 3 "$@"; }

succeeds "plain reuse needs no text" "$QUIRE" fold "$DEMO" -o "$T/reuse.quire" --share-layers pairs --share-method reuse
prints "the cache it will take" "KV cache, 4k +20.0 MiB -> 12.0 MiB"
prints "who loads it" "loaded by +quire itself only: .*kv_source_layer"
full=$(cache "$DEMO")
is "generate: three layers of five keep a cache" "$(($(cache "$T/reuse.quire") * 5))" $((full * 3))
is "and in a codec" "$(($(cache "$T/reuse.quire" --kv-cache q8_0) * 5 * 128))" $((full * 3 * 34))
succeeds "inspect" "$QUIRE" inspect "$T/reuse.quire"
prints "inspect: the map" "layers 4-4: read the cache of layer 3"
prints "inspect: bytes a token" "3.0 KiB per token"
succeeds "joint fit into a folder" fold -o "$T/joint" --share-layers suffix:1 -v
prints "-v: the owner" "layer 3 +shared K and V: error with all its readers"
prints "-v: the reader" "layer 4 +reads layer 3, heads .*W_down"
prints "damage on held-out windows" "excess loss .* 2 held-out windows"
is "config.json has the map" "$(tr -d ' \n' <"$T/joint/config.json" | grep -o '"kv_source_layer":\[[0-9,]*\]')" '"kv_source_layer":[0,1,2,3,3]'
succeeds "heads first, then layers" fold -o "$T/both.quire" --kv-heads 4 --share-layers suffix:1 --json
is "--json: cache" "$(json "$T/out" kv_bytes_4k)" 8388608
is "and the program holds as much" "$(($(cache "$T/both.quire") * 10))" $((full * 4))
succeeds "then quantize" "$QUIRE" quantize "$T/both.quire" -o "$T/q.quire" --scheme q8_0
succeeds "then verify" "$QUIRE" verify "$T/q.quire" --data "$calib" --ctx 64 --chunks 2 --against "$DEMO"

exits 5 "quantized before" "$QUIRE" fold "$T/q.quire" -o "$T/no.quire" --share-layers suffix:1 --data "$calib"
exits 5 "GGUF" fold -o "$T/no.gguf" --share-layers suffix:1
says "GGUF: says why" "cannot say that a layer reads another layer's KV cache"
exits 2 "forward reference" fold -o "$T/no.quire" --share-layers 0,2,2,3,4
says "forward reference: says which" "layer 1 cannot read layer 2: it comes later"
exits 2 "a reader that is read" fold -o "$T/no.quire" --share-layers 0,0,1,3,4
says "a reader that is read: says which" "layer 2 cannot read layer 1, which itself reads layer 0"
exits 2 "too long a suffix" fold -o "$T/no.quire" --share-layers suffix:5
exits 2 "not a map" fold -o "$T/no.quire" --share-layers 0,1
exits 2 "auto without a count" fold -o "$T/no.quire" --share-layers auto
exits 2 "no text" "$QUIRE" fold "$DEMO" -o "$T/no.quire" --share-layers pairs
says "no text: says so" "needs a text to calibrate on"
exits 2 "unknown method" fold -o "$T/no.quire" --share-layers pairs --share-method best
is "nothing was written" "$(ls "$T" | grep -c '^no')" 0
done_testing
