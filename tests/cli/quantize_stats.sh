# quantize with statistics: each method's result is closer to the original, whatever the threads; what does not belong is refused.
. "$(dirname "$0")/lib.sh"

head -c 60000 "$ROOT/examples/demo.calib.txt" >"$T/text"
head -c 40000 "$ROOT/examples/demo.eval.txt" >"$T/eval"
succeeds "statistics" "$QUIRE" calibrate "$DEMO" --data "$T/text" -o "$T/stats" --collect full --samples 12 -q
succeeds "statistics of less text" "$QUIRE" calibrate "$DEMO" --data "$T/text" -o "$T/brief" --collect full --samples 4 -q
succeeds "importance only" "$QUIRE" calibrate "$DEMO" --data "$T/text" -o "$T/small" --samples 4 -q
succeeds "importance matrix" "$QUIRE" calibrate "$DEMO" --data "$T/text" -o "$T/llama.gguf" --samples 12 -q

# the same type and size, closer and closer on text that calibration did not see
for m in rtn imatrix awq gptq best; do
	stats="--stats $T/stats"
	case $m in rtn) stats= ;; best) stats="$stats --distill 1" ;; esac
	succeeds "$m" "$QUIRE" quantize "$DEMO" -s q3_k -m $m $stats -o "$T/$m.gguf" --report "$T/$m.json" --json
	is "$m: the proof saw every tensor" "$(sed -n '/"proof"/,/}/p' "$T/out" | sed -n 's/.*"tensors": *\([0-9]*\).*/\1/p')" 47
	is "$m: the same size" "$(stat -c %s "$T/$m.gguf")" "$(stat -c %s "$T/rtn.gguf")"
	is "$m: the report has every matrix" "$(grep -c '"name"' "$T/$m.json")" 36
	succeeds "$m: judged" "$QUIRE" verify "$T/$m.gguf" --against "$DEMO" --data "$T/eval" --ctx 256 --chunks 12 --json
	eval "kl_$m=$(json "$T/out" kl_mean)"
done
below() { if awk -v a="$2" -v b="$3" 'BEGIN { exit !(a > 0 && a <= b) }'; then ok "$1"; else not_ok "$1 ($2, not below $3)"; fi; }
below "imatrix is closer than rounding" "$kl_imatrix" "$kl_rtn"
below "gptq is closer than imatrix" "$kl_gptq" "$kl_imatrix"
below "best is closer than gptq" "$kl_best" "$kl_gptq"
below "best is far closer than rounding" "$kl_best" "$(awk -v a="$kl_rtn" 'BEGIN { print .5 * a }')"

# what a method leaves as it is, it says: a line for each reason, in JSON and reports as well
v='*.v_proj*=bf16'
succeeds "awq leaves places" "$QUIRE" quantize "$DEMO" -s q4_k -m awq --stats "$T/small" --tensor "$v" -o "$T/left.quire" --report "$T/left.json" --json
says "awq leaves places: who reads with V" '^quire: warning: awq: 5 of 5 attn_q, attn_k, attn_v left as they are: one of them is not quantized$'
says "awq leaves places: what stands behind V" '^quire: warning: awq: 5 of 5 attn_o left as they are: attn_v before it is not quantized and could not hold the inverse$'
is "awq leaves places: no other line" "$(wc -l <"$T/err")" 2
for x in out left.json; do
	is "awq leaves places: in $x" "$(sed -n '/"warnings"/,/]/p' "$T/$x" | grep -c 'awq: 5 of 5 .* left as they are')" 2
done
succeeds "awq leaves places: as HTML" "$QUIRE" quantize "$DEMO" -s q4_k -m awq --stats "$T/small" --tensor "$v" -o "$T/left2.quire" --report "$T/left.html" -q
is "awq leaves places: in HTML" "$(grep -o 'awq: 5 of 5' "$T/left.html" | wc -l)" 2
is "awq leaves places: quiet" "$(wc -c <"$T/err")" 0
succeeds "awq leaves none" "$QUIRE" quantize "$DEMO" -s q4_k -m awq --stats "$T/small" -o "$T/left3.quire"
is "awq leaves none: no word" "$(wc -c <"$T/err")" 0
succeeds "best leaves places" "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/brief" --distill 0 --tensor "$v" -o "$T/left4.quire"
says "best leaves places: said" 'warning: arranged channels: 5 of 5 attn_o left as they are: attn_v is not quantized and could not hold the inverse$'
rm "$T"/left*

# training: judged on windows that it does not see, and left out where it cannot be done
succeeds "best without training" "$QUIRE" quantize "$DEMO" -s q3_k --stats "$T/brief" --distill 0 -o "$T/untrained.gguf" --json
is "best without training: nothing is said of it" "$(grep -c distilled "$T/out")" 0
# on text enough that what is held out can tell
small=$SHARED/models/stories260K
if [ -d "$small" ]; then
	succeeds "training: statistics" "$QUIRE" calibrate "$small" --data "$SHARED/text/tinystories.calib.txt" --samples 32 --ctx 256 -o "$T/small.full" -q --collect full
	for passes in 0 8; do
		succeeds "training: $passes passes" "$QUIRE" quantize "$small" -s q4_0 --stats "$T/small.full" --distill $passes -o "$T/small.gguf" -f -q
		succeeds "training: $passes passes judged" "$QUIRE" verify "$T/small.gguf" --against "$small" --data "$SHARED/text/tinystories.eval.txt" --ctx 256 --chunks 24 --json
		eval "kl_passes_$passes=$(json "$T/out" kl_mean)"
	done
	below "training brings best closer" "$kl_passes_8" "$(awk -v a="$kl_passes_0" 'BEGIN { print .97 * a }')"
else
	skip "training: no $small"
fi
succeeds "training too short to help" "$QUIRE" quantize "$DEMO" -s q8_0 --stats "$T/brief" --distill 1 -o "$T/idle.quire"
prints "training too short to help: says so" '^training: '
exits 2 "training by another method" "$QUIRE" quantize "$DEMO" -s q4_k -m gptq --stats "$T/stats" --distill 2 -o "$T/no.gguf"
says "training by another method: reason" "--distill goes with method best"
exits 2 "training without text" "$QUIRE" quantize "$DEMO" -s q4_k --distill 2 -o "$T/no.gguf"
exits 2 "text to train on without training" "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/brief" --train-text "$T/text" --distill 0 -o "$T/no.gguf"
exits 3 "text to train on that is known" "$QUIRE" quantize "$DEMO" -s q4_k --data "$T/text" --windows 0 --ctx 64 --train-text "$T/text" -o "$T/no.gguf"
says "text to train on that is known: reason" "give --train-text other text"
exits 2 "too many passes" "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/stats" --distill 1001 -o "$T/no.gguf"
says "too many passes: reason" "0 to 1000"

# channels in another order cannot be swapped back one matrix at a time
parts() { "$QUIRE" verify "$1" --against "$DEMO" --data "$T/eval" --ctx 256 --chunks 2 --attribute "$2" --json; }
exits 7 "other channels, matrix by matrix" parts "$T/untrained.gguf" roles
says "other channels, matrix by matrix: reason" "another order.*--keep-channels"
succeeds "other channels, layer by layer" parts "$T/untrained.gguf" layers
succeeds "channels as they were" "$QUIRE" quantize "$DEMO" -s q3_k --stats "$T/brief" --distill 0 --keep-channels -o "$T/kept.gguf" -q
succeeds "channels as they were, matrix by matrix" parts "$T/kept.gguf" roles
exits 2 "channels as they were by another method" "$QUIRE" quantize "$DEMO" -s q3_k -m awq --stats "$T/stats" --keep-channels -o "$T/no.gguf"
says "channels as they were by another method: reason" "--keep-channels goes with method best"

# the report: never worse than the weighted search on its own objective, worst first
worse() { awk '/"output_error_before"/ { b = $2 + 0 } /"output_error":/ { if ($2 + 0 > b * 1.000001) n++ } END { print n + 0 }' "$1"; }
is "best is nowhere worse than the search" "$(worse "$T/best.json")" 0
is "best says what it chose" "$(grep -c '"chosen": "\(feedback\|imatrix\)"' "$T/best.json")" 35
is "best gains on held-out tokens" "$(awk '/"held_out_error_before":/ { b = $2 + 0 } /"held_out_error":/ { if ($2 + 0 > b) w++; n++ } END { print n + 0, w + 0 }' "$T/best.json")" "35 0"
is "gptq is nowhere worse than the search" "$(worse "$T/gptq.json")" 0
is "worst first" "$(awk '/"output_error":/ { if (NR > 1 && last != "" && $2 + 0 > last) n++; last = $2 + 0 } END { print n + 0 }' "$T/best.json")" 0
succeeds "report as a page" "$QUIRE" quantize "$DEMO" -s q4_0 -m imatrix --stats "$T/stats" -o "$T/page.quire" --report "$T/page.html"
is "the page has every matrix" "$(grep -c '^<tr><td>' "$T/page.html")" 36
is "the page needs nothing from elsewhere" "$(grep -c 'http' "$T/page.html")" 0
exits 2 "a report of another kind" "$QUIRE" quantize "$DEMO" -s q4_0 -o "$T/x.gguf" --report "$T/x.txt"

# bytes do not depend on threads; two layers are enough to tell
few="-t *.layers.[2-4].*=keep"
set -f
for m in imatrix awq gptq best; do
	case $m in best) train="--distill 1" ;; *) train= ;; esac
	succeeds "$m: one thread" "$QUIRE" quantize "$DEMO" -s q4_k -m $m $train --stats "$T/brief" $few -o "$T/t1.quire" -f --threads 1 -q
	succeeds "$m: three threads" "$QUIRE" quantize "$DEMO" -s q4_k -m $m $train --stats "$T/brief" $few -o "$T/t3.quire" -f --threads 3 -q
	if cmp -s "$T/t1.quire" "$T/t3.quire"; then ok "$m: the same bytes"; else not_ok "$m: the same bytes"; fi
done
set +f

# plans
succeeds "best is the default with statistics" "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/stats" -n
prints "best is the default with statistics: method and memory" '^method best, peak memory [0-9.]+ [KMG]iB$'
succeeds "imatrix is the default with an importance matrix" "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/llama.gguf" -n
prints "imatrix is the default with an importance matrix: method" '^method imatrix,'
succeeds "a plan with text runs nothing" "$QUIRE" quantize "$DEMO" -s q4_0 -d "$T/text" -n --json
planned=$(json "$T/out" peak_memory)
succeeds "text instead of statistics" "$QUIRE" quantize "$DEMO" -s q4_0 -d "$T/text" --samples 4 --distill 1 -o "$T/data.quire" --json
if [ -n "${SANITIZED:-}" ]; then skip "memory stays below the plan's: a sanitizer adds its own"; elif [ "$(($(json "$T/out" peak_kib) * 1024))" -le "$planned" ]; then ok "memory stays below the plan's"; else not_ok "memory: $(json "$T/out" peak_kib) KiB, planned $planned"; fi
is "nothing is left of gathering" "$(ls "$T" | grep -c 'stats$')" 1
succeeds "the same from a file" "$QUIRE" quantize "$DEMO" -s q4_0 --stats "$T/small" --distill 1 -o "$T/file.quire" -q
if cmp -s "$T/data.quire" "$T/file.quire"; then ok "text and statistics give the same file"; else not_ok "text and statistics give the same file"; fi
succeeds "an importance matrix" "$QUIRE" quantize "$DEMO" -s q4_k -m imatrix --stats "$T/llama.gguf" -o "$T/foreign.gguf"
succeeds "awq from an importance matrix" "$QUIRE" quantize "$DEMO" -s q4_k -m awq --stats "$T/llama.gguf" -o "$T/foreign2.gguf"

# what is refused leaves nothing behind
mkdir "$T/none" "$T/other"
out="-o $T/none/x.gguf"
cp "$DEMO"/* "$T/other" && chmod -R u+w "$T/other"
at=$(($(stat -c %s "$T/other/model.safetensors") - 2000000))
head -c 200000 /dev/zero | tr '\0' '\074' | dd of="$T/other/model.safetensors" bs=1000 seek=$((at / 1000)) conv=notrunc 2>/dev/null
exits 7 "statistics of another model" "$QUIRE" quantize "$T/other" -s q4_k --stats "$T/stats" $out
says "statistics of another model: reason" "stats: .*another model"
cp "$DEMO/model.safetensors" "$T/other" && chmod u+w "$T/other/model.safetensors"
printf '\300\177' | dd of="$T/other/model.safetensors" bs=2 seek=$((at / 2)) conv=notrunc 2>/dev/null
exits 3 "a weight that is no number" "$QUIRE" quantize "$T/other" -s q4_k --data "$T/text" --samples 1 $out
exits 3 "gptq without second moments" "$QUIRE" quantize "$DEMO" -s q4_k -m gptq --stats "$T/small" $out
says "gptq without second moments: reason" "--collect full"
exits 3 "best from an importance matrix" "$QUIRE" quantize "$DEMO" -s q4_k -m best --stats "$T/llama.gguf" $out
says "best from an importance matrix: reason" "runs the model over the calibration text"
exits 2 "a method without statistics" "$QUIRE" quantize "$DEMO" -s q4_k -m best $out
says "a method without statistics: reason" "--stats FILE .* or --data"
exits 2 "statistics without use" "$QUIRE" quantize "$DEMO" -s q4_k -m rtn --stats "$T/stats" $out
exits 2 "choices from a text that is not there" "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/stats" --ctx 64 $out
says "choices from a text that is not there: reason" "choose from --data, and there is none"
exits 2 "statistics and text" "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/stats" --data "$T/text" $out
LC_ALL=C sed 's/layers\.2\.ffn_down/layers.7.ffn_down/g' "$T/stats" >"$T/lacks"
exits 3 "statistics that lack a layer" "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/lacks" $out
says "statistics that lack a layer: reason" "lack 'layers.2.ffn_down'"
LC_ALL=C sed 's/blk\.2\.ffn_down/blk.9.ffn_down/g' "$T/llama.gguf" >"$T/lacks.gguf"
succeeds "an importance matrix that lacks a layer" "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/lacks.gguf" -o "$T/lacking.gguf"
says "an importance matrix that lacks a layer: warning" "no entry for 1 of the matrices, the first model.layers.2.mlp.down_proj.weight"
head -c 100000 "$T/stats" >"$T/cut"
exits 3 "truncated statistics" "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/cut" $out
exits 3 "a text as statistics" "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/text" $out
: >"$T/empty"
exits 3 "empty text" "$QUIRE" quantize "$DEMO" -s q4_k --data "$T/empty" $out
echo "Once upon a time" >"$T/short"
exits 3 "text shorter than a window" "$QUIRE" quantize "$DEMO" -s q4_k --data "$T/short" $out
says "text shorter than a window: reason" "fewer than one window"
is "nothing was written" "$(ls -A "$T/none" | wc -l)" 0

# what cannot be written, or would be written over what is read, is known before the work: the method's progress is not reached
best() { "$QUIRE" quantize "$T/mine" -s q4_k -m best --stats "$T/stats" "$@"; }
mkdir "$T/mine" && cp "$DEMO"/* "$T/mine" && chmod u+w "$T/mine"/*
cp "$T/text" "$T/text2"
printf 'attn_v = q8_0\n' >"$T/rules"
exits 4 "no such folder" timeout 20 "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/stats" --distill 1000 -o "$T/no/x.gguf"
exits 4 "no such folder for a folder" timeout 20 "$QUIRE" quantize "$DEMO" -s int4-g128 --stats "$T/stats" --distill 1000 -o "$T/no/x"
exits 4 "no such folder for the report" timeout 20 "$QUIRE" quantize "$DEMO" -s q4_k --stats "$T/stats" --distill 1000 $out --report "$T/no/x.json"
is "nothing was written there" "$(ls -A "$T/none" | wc -l)" 0
exits 2 "over the statistics" best -f --to quire -o "$T/stats"
says "over the statistics: reason" "stats' is an input as well"
exits 2 "over the text" "$QUIRE" quantize "$DEMO" -s q4_k --data "$T/text2" --samples 1 -f --to quire -o "$T/text2"
exits 2 "over the recipe" best -f --to quire -o "$T/rules" --recipe "$T/rules"
exits 2 "over the weights" best -f --to quire -o "$T/mine/model.safetensors"
exits 2 "the report over the config" best $out --report "$T/mine/config.json"
is "all of them are still there" "$(cmp "$T/text" "$T/text2" && cat "$T/rules" && diff -r "$DEMO" "$T/mine" && echo same)" "attn_v = q8_0
same"

# interrupted while it gathers: nothing is left
mkdir "$T/gone"
"$QUIRE" quantize "$DEMO" -s q4_k --data "$ROOT/examples/demo.calib.txt" --samples 0 --ctx 256 -o "$T/gone/x.gguf" >/dev/null 2>&1 &
pid=$!
sleep 1
kill -0 $pid 2>/dev/null && ok "gathering takes a while" || not_ok "gathering takes a while"
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
is "interrupted while it gathers: nothing is left" "$(ls -A "$T/gone" | wc -l)" 0

# fewer tokens than channels: said, and damped more
succeeds "few tokens" "$QUIRE" calibrate "$DEMO" --data "$T/text" -o "$T/few" --ctx 64 --samples 1 --collect full
succeeds "gptq from few tokens" "$QUIRE" quantize "$DEMO" -s q4_k -m gptq --stats "$T/few" -o "$T/few.gguf"
says "gptq from few tokens: warning" "64 tokens are too few for the second moments of 512 channels; damping is raised"

succeeds "best from few tokens" "$QUIRE" quantize "$DEMO" -s q4_0 -m best --stats "$T/few" -o "$T/few2.gguf"
says "best from few tokens: warning" "64 tokens are too few .*damping is raised"

# a row of 256 that its type cannot hold (its scales are below f16's smallest) or that was one value before: said by every method
plant tiny model.layers.1.self_attn.q_proj.weight "$(for i in {1..64}; do printf '\\200\\060\\0\\061\\100\\061\\0\\060'; done)"
plant zero model.layers.1.self_attn.q_proj.weight "$(for i in {1..512}; do printf '\\0'; done)"
for m in imatrix awq best; do
	data="--data $T/text --samples 4 --ctx 128"
	succeeds "$m: vanishing weights" "$QUIRE" quantize "$T/tiny" -s q4_0 -m $m $data -o "$T/tiny.gguf" -f --json
	says "$m: vanishing weights: where" 'warning: 8 of [0-9]+ blocks came out as one value.*: tensor model.layers.1.self_attn.q_proj.weight, row 0, column 0'
	is "$m: vanishing weights: counted" "$(json "$T/out" constant_blocks)/$(json "$T/out" first_constant)" "8/tensor model.layers.1.self_attn.q_proj.weight, row 0, column 0"
	succeeds "$m: a row of zeros" "$QUIRE" quantize "$T/zero" -s q4_0 -m $m $data -o "$T/zero.gguf" -f
	prints "$m: a row of zeros: no alarm, but said" '0 alarms, 8 blocks of one value as in the source'
done

# folders in compressed-tensors form, and back
for s in int4-g128 int4-g64-zp int8-row; do
	succeeds "$s: folder" "$QUIRE" quantize "$DEMO" -s $s -m imatrix --stats "$T/stats" -o "$T/$s"
	succeeds "$s: packed" "$QUIRE" convert "$T/$s" -o "$T/$s.quire" -q
	succeeds "$s: judged" "$QUIRE" verify "$T/$s" --data "$T/eval" --ctx 256 --chunks 2 --json
	want=$(json "$T/out" perplexity)
	succeeds "$s: packed, judged" "$QUIRE" verify "$T/$s.quire" --data "$T/eval" --ctx 256 --chunks 2 --json
	is "$s: the same perplexity" "$(json "$T/out" perplexity)" "$want"
	is "$s: config.json says what it is" "$(grep -c '"quant_method": "compressed-tensors"' "$T/$s/config.json")" 1
	is "$s: only zero points are decoded while loading" "$(grep -c '"dequantize": true' "$T/$s/config.json")" "$(case $s in *-zp) echo 1 ;; *) echo 0 ;; esac)"
done
done_testing
