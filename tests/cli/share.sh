# fold --share-layers: a smaller cache in the running program, the damage it says, and what it refuses.
. "$(dirname "$0")/lib.sh"
calib=$ROOT/examples/demo.calib.txt
prompt="There was once a child called"
cache() { "$QUIRE" generate "$1" "$prompt" --tokens 8 --json "${@:2}" >"$T/g"; json "$T/g" kv_cache_bytes; }
fold() { "$QUIRE" fold "$DEMO" --data "$calib" --ctx 64 --samples 16 --steps 3 "$@"; }

succeeds "plain reuse needs no text" "$QUIRE" fold "$DEMO" -o "$T/reuse.quire" --share-layers pairs --share-method reuse
prints "the cache it will take" "KV cache, 4k +20.0 MiB -> 12.0 MiB"
prints "who loads it" "loaded by +quire itself only: .*kv_source_layers"
full=$(cache "$DEMO")
is "generate: three layers of five keep a cache" "$(($(cache "$T/reuse.quire") * 5))" $((full * 3))
is "and in a codec" "$(($(cache "$T/reuse.quire" --kv-cache q8_0) * 5 * 128))" $((full * 3 * 34))
if [ -d "$SHARED/models/english" ]; then
	succeeds "six layers in pairs" "$QUIRE" fold "$SHARED/models/english" -o "$T/half.quire" --share-layers pairs --share-method reuse
	is "half of the layers share: the program holds half" "$(($(cache "$T/half.quire") * 2))" "$(cache "$SHARED/models/english")"
else
	skip "half of the layers: no shared models"
fi
succeeds "inspect" "$QUIRE" inspect "$T/reuse.quire"
prints "inspect: the map" "layers 4-4: read the cache of layer 3"
prints "inspect: bytes a token" "3.0 KiB per token"
succeeds "joint fit into a folder" fold -o "$T/joint" --share-layers suffix:1 -v
prints "-v: the owner" "layer 3 +shared K and V: error with all its readers"
prints "-v: the reader" "layer 4 +reads layer 3, heads .*W_down"
prints "damage on held-out windows" "excess loss .* 4 held-out windows"
is "config.json has the map" "$(tr -d ' \n' <"$T/joint/config.json" | grep -o '"kv_source_layers":\[[0-9,]*\]')" '"kv_source_layers":[0,1,2,3,3]'
succeeds "heads first, then layers" fold -o "$T/both.quire" --kv-heads 4 --share-layers suffix:1 --json
is "--json: cache" "$(json "$T/out" kv_bytes_4k)" 8388608
is "and the program holds as much" "$(($(cache "$T/both.quire") * 10))" $((full * 4))
succeeds "then quantize" "$QUIRE" quantize "$T/both.quire" -o "$T/q.quire" --scheme q8_0
succeeds "then verify" "$QUIRE" verify "$T/q.quire" --data "$calib" --ctx 64 --chunks 2 --against "$DEMO"

exits 5 "quantized before" "$QUIRE" fold "$T/q.quire" -o "$T/no.quire" --share-layers suffix:1 --data "$calib"
exits 5 "a map in a GGUF" fold -o "$T/no.gguf" --share-layers pairs
says "a map in a GGUF: says why" "gemma4 knows one form: the last layers read the last one before them"
exits 5 "converted to GGUF" "$QUIRE" convert "$T/joint" -o "$T/no.gguf"
says "converted to GGUF: says what to do" "fold MODEL --for llama.cpp"
exits 2 "forward reference" fold -o "$T/no.quire" --share-layers 0,2,2,3,4
says "forward reference: says which" "layer 1 cannot read layer 2: it comes later"
exits 2 "a reader that is read" fold -o "$T/no.quire" --share-layers 0,0,1,3,4
says "a reader that is read: says which" "layer 2 cannot read layer 1, which itself reads layer 0"
exits 2 "too long a suffix" fold -o "$T/no.quire" --share-layers suffix:5
exits 2 "not a map" fold -o "$T/no.quire" --share-layers 0,1
exits 2 "auto without a text" "$QUIRE" fold "$DEMO" -o "$T/no.quire" --share-layers auto --dry-run
says "auto without a text: says so" "needs a text to calibrate on"
exits 2 "auto with a KL that nothing keeps" fold -o "$T/no.quire" --share-layers auto --max-kl 1e-9
says "auto with a KL that nothing keeps: says the least" "in closed form the least is 0\.[0-9]+"
exits 2 "auto with a size that nothing keeps" fold -o "$T/no.quire" --share-layers auto --kv-budget 1MiB@4096
says "auto with a size that nothing keeps: says the smallest" "the smallest is 4194304 bytes at 4096 tokens"
exits 2 "--max-kl without a text" "$QUIRE" fold "$DEMO" -o "$T/no.quire" --kv-heads 4 --method mean --max-kl 0.1
exits 1 "--max-kl that a map exceeds" fold -o "$T/no.quire" --share-layers suffix:3 --share-method reuse --max-kl 0.1
says "--max-kl that a map exceeds: says by how much" "KL 0\.[0-9]+ on [0-9]+ held-out windows is more than --max-kl 0.1; nothing is written"
exits 2 "auto:0" fold -o "$T/no.quire" --share-layers auto:0
exits 2 "auto:5 of five" fold -o "$T/no.quire" --share-layers auto:5
exits 2 "a word that begins like auto" fold -o "$T/no.quire" --share-layers automatic
succeeds "auto" fold -o "$T/no.quire" --share-layers auto --dry-run
prints "auto: half of the layers, and says so" "^search +2 of 5 layers read .*half of them"
prints "auto: the cache" "KV cache, 4k +20.0 MiB -> 12.0 MiB"
succeeds "auto within a size" fold -o "$T/auto.quire" --share-layers auto --kv-budget 13MiB@4096
prints "auto within a size: the cache" "KV cache, 4k +20.0 MiB -> 12.0 MiB"
is "auto within a size: what the program holds" "$(($(cache "$T/auto.quire") * 5))" $((full * 3))
exits 2 "no text" "$QUIRE" fold "$DEMO" -o "$T/no.quire" --share-layers pairs
says "no text: says so" "needs a text to calibrate on"
exits 2 "unknown method" fold -o "$T/no.quire" --share-layers pairs --share-method best
exits 2 "a cycle" fold -o "$T/no.quire" --share-layers 1,0,2,3,4
says "a cycle: says where" "layer 0 cannot read layer 1: it comes later"
exits 2 "a layer that is not there" fold -o "$T/no.quire" --share-layers 0,1,2,3,9
says "a layer that is not there: says so" "layer 4 cannot read layer 9: there is no such layer"
# what was shared before cannot be changed any more
again() { "$QUIRE" fold "$T/reuse.quire" -o "$T/no.quire" --data "$calib" --ctx 64 --samples 16 "$@"; }
exits 5 "heads after layers" again --kv-heads 4
says "heads after layers: says why" "layer 2 reads the KV cache of layer 1; fold heads before layers are shared"
exits 5 "layers again" again --share-layers suffix:1
says "layers again: says why" "reads the KV cache of layer 1 already; start from the original"
exits 5 "layers again, searched" again --share-layers auto
exits 5 "windows after layers" again --window 8
says "windows after layers: says why" "windows come before layers are shared"
exits 5 "a plan after layers" again --kv-budget 2MiB@4096
says "a plan after layers: says why" "start from the original"
"$QUIRE" fold "$DEMO" -o "$T/uneven.quire" --kv-heads 4 --layers 2 --method mean -q
exits 5 "unlike head counts" "$QUIRE" fold "$T/uneven.quire" -o "$T/no.quire" --share-layers pairs --data "$calib"
says "unlike head counts: says which" "layer 2 cannot read layer 1: they have 4 and 8 KV heads"

# hardly any text: no method is worse on held-out windows than a simpler one, which is kept
tiny() { "$QUIRE" fold "$DEMO" -o "$T/tiny.quire" --data "$calib" --samples 8 --ctx 16 --steps 10 --share-layers pairs --json -f "$@" >"$T/out" 2>"$T/err"; json "$T/out" kl; }
for s in 1 3 5; do
	reuse=$(tiny --share-method reuse --seed $s) match=$(tiny --share-method match --seed $s)
	joint=$(tiny --seed $s)
	is "8 windows of 16 tokens, seed $s" "$(awk -v a="$joint" -v b="$match" -v c="$reuse" 'BEGIN { print a != "" && a <= b && b <= c }')" 1
done
says "little text: what was kept, and why" "by method joint: KL 0\.[0-9]+ on held-out windows, 0\.[0-9]+ by method match, which is kept; use more text"
is "--json: the method kept" "$(json "$T/out" share_method)" match

# sliding windows
succeeds "windows" fold -o "$T/w.quire" --window 16 --full-every 3
is "two full layers of five" "$(grep -c '^layer [0-4] *full' "$T/out")" 2
prints "what the others looked at" 'window 16, [0-9.]+ % of its attention was before the last 16 tokens'
prints "the damage" "excess loss"
succeeds "inspect" "$QUIRE" inspect "$T/w.quire"
prints "inspect: windows" "8 KV heads, window 16"
exits 5 "unlike windows" "$QUIRE" fold "$T/w.quire" -o "$T/no.quire" --share-layers suffix:4 --data "$calib"
says "unlike windows: says which" "layer [0-4] cannot read layer 0: their windows differ \((16 and 0|0 and 16)\)"
exits 2 "a window longer than the context" fold -o "$T/no.quire" --window 300
exits 2 "a window as long as the context" fold -o "$T/no.quire" --window 256
says "longer: says both" "the context of this model is 256"
exits 5 "windows twice" "$QUIRE" fold "$T/w.quire" -o "$T/no.quire" --window 8 --data "$calib"
exits 2 "--full-every alone" fold -o "$T/no.quire" --kv-heads 4 --full-every 2
exits 2 "--full-every 0" fold -o "$T/no.quire" --window 16 --full-every 0
succeeds "windows in a GGUF" fold -o "$T/w.gguf" --window 16
prints "windows in a GGUF: who loads it" "loaded by +llama.cpp, as step35"
succeeds "windows and shared layers" fold -o "$T/ws.quire" --window 16 --full-every 2 --share-layers pairs
kind() { sed -n "s/^layer $1 *\\([a-z0-9 ]*\\),.*/\\1/p" "$T/out"; }
is "windows and shared layers: readers have their owner's" "$(kind 2), $(kind 4)" "$(kind 1), $(kind 3)"
is "windows and shared layers: one cache of two is full" "$(for i in 0 1 3; do kind $i; done | grep -c full)" 2
succeeds "all three" fold -o "$T/all.quire" --window 16 --full-every 3 --share-layers pairs --kv-heads 4 --share-method match --method pca
succeeds "heads alone" fold -o "$T/heads.quire" --kv-heads 2 --method pca
above() { if awk -v a="$2" -v b="$3" 'BEGIN { exit !(a != "" && b != "" && a > b) }'; then ok "$1"; else not_ok "$1 ($2, want more than $3)"; fi; }
for m in heads both w ws all; do
	succeeds "$m: what a smaller cache costs" "$QUIRE" verify "$T/$m.quire" --data "$calib" --ctx 64 --chunks 8 --protocol full \
		--against "$DEMO" --kl-by-position --copy-test --check-decode --json
	prints "$m: prefill and decoding agree" '"agree": true'
	above "$m: 99th percentile" "$(json "$T/out" kl_p99)" "$(json "$T/out" kl_mean)"
	is "$m: ranges of positions" "$(sed -n '/kl_by_position/,/\]/p' "$T/out" | grep -c '"kl_mean":')" 16
	prints "$m: loss on repeated tokens" '"loss_second": [0-9.]+'
	[ $m = w ] && above "w: copying suffers" "$(json "$T/out" loss_second)" "$(json "$T/out" reference_loss_second)"
	position=$(sed -n '/kl_by_position/,/\]/s/.*"kl_mean": *\([^,]*\),.*/\1/p' "$T/out")
	above "$m: KL at the end" "$(tail -n 1 <<<"$position")" 0
	[ $m = w ] && is "w: no KL before the window is full" "$(head -n 4 <<<"$position" | tr '\n' ' ')" "0 0 0 0 "
done
succeeds "quantize shared layers and windows by the best method" "$QUIRE" quantize "$T/ws.quire" -o "$T/best.quire" --scheme q4_k \
	--method best --data "$calib" --ctx 64 --samples 16 --distill 1
prints "layers that share KV are trained" "^training: "
succeeds "and verify against the original" "$QUIRE" verify "$T/best.quire" --data "$calib" --ctx 64 --chunks 8 --against "$DEMO" --json
best=$(json "$T/out" kl_mean)
"$QUIRE" verify "$T/ws.quire" --data "$calib" --ctx 64 --chunks 8 --against "$DEMO" --json >"$T/out"
near "quantizing adds little" "$best" "$(json "$T/out" kl_mean)" 0.5

# a budget
succeeds "the plan" fold -o "$T/no.quire" --kv-budget 18MiB@4096 --dry-run
prints "the plan: its steps" "^step 1 +layer [0-4] .* KL \+0\.[0-9]+, 0\.[0-9]+ in all"
prints "the plan: the size" "KV budget +20.0 MiB -> 1[0-8]\.[0-9] MiB at 4096 tokens"
prints "the plan: heads step by step" "^step [0-9]+ +layer [0-4] +4 KV heads +KL"
prints "the plan: steps and all of them together" "^KL +0\.[0-9]+ predicted as the sum of steps, 0\.[0-9]+ all steps together"
succeeds "a plan that may choose a codec" fold -o "$T/plan.quire" --kv-budget 3MiB@4096 --kv-cache auto
prints "codecs: measured by themselves" "^cache in q8_0 +(\(taken\))? +KL \+0\.[0-9]+ by itself"
prints "codecs: predicted and measured" "in closed forms; 0\.[0-9]+ measured as written"
prints "codecs: how to run it" "^run it with +--kv-cache (q8_0|q4_0)"
with=$(sed -n 's/^run it with *\(--[^(]*\)(.*/\1/p' "$T/out")
is "the running program keeps to the budget" "$(($(cache "$T/plan.quire" $with) * 40 <= full * 3))" 1
succeeds "verify it so" "$QUIRE" verify "$T/plan.quire" --data "$calib" --ctx 64 --chunks 2 --against "$DEMO" $with
succeeds "one codec, no plan" fold -o "$T/no.quire" --kv-heads 4 --method mean --kv-cache q8_0+q4_0 --dry-run
prints "one codec: how to run it" "^run it with +--kv-cache q8_0 --kv-cache-v q4_0"
prints "one codec: the size in it" "KV cache, 4k +20.0 MiB -> 4.1 MiB \(f16 -> q8_0\+q4_0\)"
exits 2 "auto without a budget" fold -o "$T/no.quire" --kv-heads 4 --kv-cache auto
exits 2 "unknown codec" fold -o "$T/no.quire" --kv-heads 4 --kv-cache q99
exits 5 "blocks that do not divide a head" fold -o "$T/no.quire" --kv-heads 4 --kv-cache q4_k
exits 2 "no codec" fold -o "$T/no.quire" --kv-budget 3MiB@4096 --kv-cache q8_0,
exits 2 "cannot be met in any codec" fold -o "$T/no.quire" --kv-budget 100KiB@4096 --kv-cache auto
says "cannot be met in any codec: says the smallest" "the smallest is 144.0 KiB \(147456 bytes, q4_0\)"
succeeds "a budget that is met already" fold -o "$T/roomy.quire" --kv-budget 20MiB@4096
exits 2 "a budget that cannot be met" fold -o "$T/no.quire" --kv-budget 100KiB@4096
says "cannot be met: says the smallest" "the smallest is 512.0 KiB .*--kv-cache auto may store it in fewer bytes"
exits 2 "no tokens" fold -o "$T/no.quire" --kv-budget 64MiB
for b in 0@4096 64MiB@0 64MiB@ @4096 64MiB@-1 64MiB@4096x x@4096; do
	exits 2 "--kv-budget $b" fold -o "$T/no.quire" --kv-budget=$b
done
# a budget beside windows: they are chosen first, and what they cost is told apart from the steps
succeeds "windows and a budget" fold -o "$T/wb.quire" --window 16 --full-every 3 --kv-budget 6MiB@4096 --json
cp "$T/out" "$T/wb.json"
budget() { sed -n '/"kv_budget"/,$p' "$1" >"$T/budget"; json "$T/budget" "$2"; }
is "windows and a budget: from the original's size to the budget" "$(budget "$T/wb.json" bytes_before) $(($(budget "$T/wb.json" bytes_after) <= 6 << 20))" "20971520 1"
is "windows and a budget: layers have windows" "$(grep -A 6 '"windows"' "$T/wb.json" | grep -c '^ *16')" 3
if grep -q '"cache_bytes"' "$T/wb.json"; then ok "windows and a budget: steps are taken"; else not_ok "windows and a budget: steps are taken"; fi
windows=$(budget "$T/wb.json" kl_windows)
is "windows and a budget: steps add to what windows cost" "$(awk -v w="$windows" -v p="$(budget "$T/wb.json" kl_predicted)" 'BEGIN { print (w > 0 && p > w) }')" 1
succeeds "windows that meet the budget" fold -o "$T/no.quire" --window 16 --full-every 3 --kv-budget 9MiB@4096 --json --dry-run
is "windows that meet the budget: no step, and their cost" "$(grep -c '"cache_bytes"' "$T/out") $(budget "$T/out" kl_predicted) $(budget "$T/out" kl_together)" "0 $windows $windows"
exits 2 "windows, and a budget that cannot be met" fold -o "$T/no.quire" --window 16 --kv-budget 1KiB@4096
says "windows, and a budget that cannot be met: says the smallest" "the smallest is [0-9]+"
exits 2 "a budget and heads" fold -o "$T/no.quire" --kv-budget 8MiB@4096 --kv-heads 4
is "nothing was written" "$(ls "$T" | grep -c '^no')" 0
done_testing
