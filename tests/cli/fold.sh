# fold: fewer KV heads, in every format, and what it refuses.
. "$(dirname "$0")/lib.sh"
calib=$ROOT/examples/demo.calib.txt eval=$ROOT/examples/demo.eval.txt
few="--samples 16 --ctx 128"
loss() { "$QUIRE" verify "$1" --data "$eval" --ctx 128 --chunks 12 --json | sed -n 's/.*"perplexity": \([0-9.]*\).*/\1/p'; }
less() { if awk -v a="$2" -v b="$3" 'BEGIN { exit !(a != "" && b != "" && a + 0 < b + 0) }'; then ok "$1"; else not_ok "$1 ($2, want less than $3)"; fi; }

# its own head count: the same bytes
succeeds "convert" "$QUIRE" convert "$DEMO" -o "$T/copy"
succeeds "fold to its own head count" "$QUIRE" fold "$DEMO" -o "$T/same" --kv-heads 8
says "and says so" "has these KV heads already"
if cmp -s "$T/copy/model.safetensors" "$T/same/model.safetensors"; then ok "the same bytes"; else not_ok "the same bytes"; fi

succeeds "mean needs no text" "$QUIRE" fold "$DEMO" -o "$T/mean" --kv-heads 4 --method mean
prints "cache before and after" "KV cache, 4k +20.0 MiB -> 10.0 MiB"
prints "who loads it" "loaded by +everything that loads the original"
is "config.json" "$(json "$T/mean/config.json" num_key_value_heads)" 4
succeeds "inspect" "$QUIRE" inspect "$T/mean"
succeeds "pca" "$QUIRE" fold "$DEMO" -o "$T/pca.quire" --kv-heads 4 --method pca --data "$calib" $few --json
is "--json: method" "$(json "$T/out" method)" pca
is "--json: cache" "$(json "$T/out" kv_bytes_4k)" 10485760
less "--json: predicted loss" "$(json "$T/out" excess_loss)" 0.6
succeeds "refit" "$QUIRE" fold "$DEMO" -o "$T/refit.gguf" --kv-heads 4 --data "$calib" $few --steps 12 -v
prints "-v: groups and errors of each layer" "layer 4 +8 -> 4 .*attention error .* layer .*W_down"
prints "predicted loss" "excess loss .* 4 held-out windows"
mean=$(loss "$T/mean") pca=$(loss "$T/pca.quire") refit=$(loss "$T/refit.gguf")
less "pca is better than mean" "$pca" "$mean"
less "refit is better than pca" "$refit" "$pca"

# hardly any text: a refit is never worse on held-out windows than the closed form it began with
tiny() { "$QUIRE" fold "$DEMO" -o "$T/tiny.quire" --data "$calib" --samples 8 --ctx 16 --steps 10 --json -f "$@" >"$T/out" 2>"$T/err"; json "$T/out" kl; }
for s in 1 2; do
	closed=$(tiny --kv-heads 4 --method pca --seed $s)
	refit=$(tiny --kv-heads 4 --seed $s)
	is "8 windows of 16 tokens, seed $s: refit is no worse than pca" "$(awk -v a="$refit" -v b="$closed" 'BEGIN { print a != "" && a <= b }')" 1
done

# the same bytes for any number of threads
for t in 1 3; do
	"$QUIRE" fold "$DEMO" -o "$T/t$t.quire" --kv-heads 2 --data "$calib" --samples 8 --ctx 64 --steps 4 --threads $t -q --no-source-hash
done
if cmp -s "$T/t1.quire" "$T/t3.quire"; then ok "threads do not show"; else not_ok "threads do not show"; fi

# statistics: one pass serves every grouping and method
succeeds "calibrate --collect kv" "$QUIRE" calibrate "$DEMO" --data "$calib" $few --collect kv -o "$T/kv.stats"
succeeds "closed forms from statistics alone" "$QUIRE" fold "$DEMO" -o "$T/from4" --kv-heads 4 --method pca --stats "$T/kv.stats"
prints "judged on the same text, and says so" "excess loss .* 4 of the statistics' windows"
near "as good as from the text" "$(loss "$T/from4")" "$pca" 0.1
for m in weighted medoid align; do
	succeeds "$m from statistics" "$QUIRE" fold "$DEMO" -o "$T/from-$m" --kv-heads 1 --method $m --stats "$T/kv.stats" --data "$eval" $few --json
	is "$m: judged on another text" "$(json "$T/out" in_sample)" false
done
succeeds "refit runs over the statistics' text" "$QUIRE" fold "$DEMO" -o "$T/from-refit" --kv-heads 4 --stats "$T/kv.stats" --steps 6
prints "its windows are held out" "4 held-out windows"
less "and it is better than pca" "$(loss "$T/from-refit")" "$(loss "$T/from4")"
exits 2 "other windows than the statistics'" "$QUIRE" fold "$DEMO" -o "$T/no" --kv-heads 4 --stats "$T/kv.stats" --ctx 64
says "and says so" "have 128 tokens; give --data for others"
exits 7 "statistics of another model" "$QUIRE" fold "$T/from4" -o "$T/no" --kv-heads 2 --stats "$T/kv.stats"
says "and says so" "kv.stats: the statistics were gathered with another model"
"$QUIRE" calibrate "$DEMO" --data "$calib" --ctx 128 --samples 1 -q -o "$T/im.stats"
exits 3 "statistics without keys and values" "$QUIRE" fold "$DEMO" -o "$T/no" --kv-heads 4 --stats "$T/im.stats"
says "and says how to make them" "make them with calibrate --collect kv"
exits 3 "quantizing with statistics of keys and values" "$QUIRE" quantize "$DEMO" -o "$T/no.gguf" --scheme q4_0 --stats "$T/kv.stats"
says "and says how to make others" "for fold; make others with calibrate --collect full"
exits 2 "no importance matrix of kind kv" "$QUIRE" calibrate "$DEMO" --data "$calib" --collect kv -o "$T/no.gguf"

# counts per layer
succeeds "one count per layer" "$QUIRE" fold "$DEMO" -o "$T/per" --kv-heads 8,4,4,2,1 --method pca --data "$calib" $few
prints "only quire loads it" "loaded by +quire itself only"
succeeds "and does" "$QUIRE" verify "$T/per" --data "$eval" --ctx 128 --chunks 2
succeeds "some layers" "$QUIRE" fold "$DEMO" -o "$T/some" --kv-heads 4 --layers 1-2,4 --method mean
prints "the others keep theirs" "KV heads +8 -> 8,4,4,8,4"
exits 5 "GGUF of llama has one count" "$QUIRE" convert "$T/some" -o "$T/no.gguf"
says "and the message says what to do" "fold MODEL --for llama.cpp"
succeeds "another architecture has many" "$QUIRE" fold "$T/per" -o "$T/per.gguf" --for llama.cpp
prints "and who loads it is said" "loaded by +llama.cpp, as deci"
near "and it is the same model" "$(loss "$T/per.gguf")" "$(loss "$T/per")" 0.0001
exits 5 "transformers' classes have one" "$QUIRE" fold "$T/per" -o "$T/no" --for transformers
says "but with code of our own" "with-code"
exits 2 "a program that reads no such files" "$QUIRE" fold "$T/per" -o "$T/no" --for llama.cpp
exits 2 "an unknown program" "$QUIRE" fold "$T/per" -o "$T/no" --for ollama
says "and which there are" "one of: quire, llama.cpp, transformers, vllm"

# fold, quantize, verify
succeeds "quantize what was folded" "$QUIRE" quantize "$T/pca.quire" -o "$T/q.gguf" --scheme Q8_0
near "and it is as good" "$(loss "$T/q.gguf")" "$pca" 0.01
kl() { "$QUIRE" verify "$1" --data "$eval" --ctx 128 --chunks 8 --against "$2" --json | sed -n 's/.*"kl_mean": \([0-9.e-]*\).*/\1/p'; }
succeeds "quantize by the best method" "$QUIRE" quantize "$T/refit.gguf" -o "$T/best.gguf" --scheme q4_k --method best --data "$calib" $few
succeeds "quantize by plain rounding" "$QUIRE" quantize "$T/refit.gguf" -o "$T/rtn.gguf" --scheme q4_k --method rtn
less "best is nearer to the folded model" "$(kl "$T/best.gguf" "$T/refit.gguf")" "$(kl "$T/rtn.gguf" "$T/refit.gguf")"
near "and about as far from the original as that" "$(kl "$T/best.gguf" "$DEMO")" "$(kl "$T/refit.gguf" "$DEMO")" 0.25
exits 5 "a quantized model" "$QUIRE" fold "$T/q.gguf" -o "$T/no" --kv-heads 2 --method mean
says "fold first" "is quantized to q8_0; fold the original first, then quantize"

succeeds "--dry-run" "$QUIRE" fold "$DEMO" -o "$T/no" --kv-heads 2 --dry-run
prints "--dry-run: shapes" "layers.0.self_attn.k_proj.weight +\[64, 256\]"
exits 2 "no count" "$QUIRE" fold "$DEMO" -o "$T/no"
exits 2 "does not divide" "$QUIRE" fold "$DEMO" -o "$T/no" --kv-heads 3 --method mean
says "and says so" "8 KV heads of layer 0 cannot be folded to 3: the count must divide"
exits 2 "more heads" "$QUIRE" fold "$DEMO" -o "$T/no" --kv-heads 16 --method mean
exits 2 "no heads" "$QUIRE" fold "$DEMO" -o "$T/no" --kv-heads 0 --method mean
for k in 4,4 4,4,4,4,4,4 4,,4,4,4 x -4 4x; do
	exits 2 "--kv-heads $k" "$QUIRE" fold "$DEMO" -o "$T/no" --kv-heads=$k --method mean
done
for l in 5 3-9 2-1 a 1, -1; do
	exits 2 "--layers $l" "$QUIRE" fold "$DEMO" -o "$T/no" --kv-heads 4 --layers=$l --method mean
done
exits 2 "no text" "$QUIRE" fold "$DEMO" -o "$T/no" --kv-heads 4
says "and says so" "method refit needs a text to calibrate on: --data TEXT"
exits 2 "unknown method" "$QUIRE" fold "$DEMO" -o "$T/no" --kv-heads 4 --method best
exits 2 "unknown grouping" "$QUIRE" fold "$DEMO" -o "$T/no" --kv-heads 4 --method mean --group best
echo "Too short." >"$T/short.txt"
exits 3 "a short text" "$QUIRE" fold "$DEMO" -o "$T/no" --kv-heads 4 --data "$T/short.txt"
exits 2 "a folder that is not empty" timeout 5 "$QUIRE" fold "$DEMO" -o "$T/mean" --kv-heads 4 --data "$calib" --steps 1000
says "and says so before any work" "'$T/mean': it exists and is not empty"
exits 2 "the output is there" "$QUIRE" fold "$DEMO" -o "$T/pca.quire" --kv-heads 4 --method mean
is "nothing was written" "$(ls "$T" | grep -c '^no')" 0

if [ -d "$SHARED/models/stories260K" ]; then
	S=$SHARED/models/stories260K
	for k in 2 1; do
		succeeds "grouped queries, 4 to $k" "$QUIRE" fold "$S" -o "$T/s$k" --kv-heads $k --data "$SHARED/text/tinystories.calib.txt" $few --steps 5
		"$QUIRE" convert "$T/s$k" -o "$T/s$k.gguf" >"$T/out" 2>"$T/err"
		near "the same as GGUF" "$(loss "$T/s$k.gguf")" "$(loss "$T/s$k")" 0.0001
	done
else
	skip "grouped queries: no shared models"
fi
done_testing
