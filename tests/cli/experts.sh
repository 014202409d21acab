# mixtures of experts: inspect, convert, calibrate, quantize with every method, attribute, fold.
. "$(dirname "$0")/lib.sh"

M=$T/moe
mkdir "$M" && cp "$ROOT"/tests/golden/model/qwen3-moe-text/* "$DEMO"/tokenizer* "$M"
head -c 12000 "$ROOT/examples/demo.calib.txt" >"$T/calib.txt"
head -c 6000 "$ROOT/examples/demo.eval.txt" >"$T/eval.txt"
ppl() { "$QUIRE" verify "$1" --data "$T/eval.txt" --ctx 64 --windows 6 --json 2>/dev/null >"$T/ppl"; json "$T/ppl" perplexity; }
kl() { "$QUIRE" verify "$1" --against "$M" --data "$T/eval.txt" --ctx 64 --windows 6 --json 2>/dev/null >"$T/kl"; json "$T/kl" kl_mean; }

succeeds "inspect" "$QUIRE" inspect "$M"
prints "inspect: experts" '^experts +8 of width 32, 2 for each token, in 2 of 2 layers$'
# 2 layers of norms, attention with norms of heads, router and 8 experts of 3 matrices; embedding and final norm
all=$((1024 * 32 + 32 + 2 * (64 + 32 * (64 + 64 + 64) + 32 + 256 + 8 * 3072)))
prints "inspect: parameters" "^parameters +[0-9.]+K \\($all\\), [0-9.]+K of them for each token\$"

succeeds "to GGUF" "$QUIRE" convert "$M" -o "$T/m.gguf" -q
succeeds "to .quire" "$QUIRE" convert "$M" -o "$T/m.quire" -q
succeeds "GGUF to a folder" "$QUIRE" convert "$T/m.gguf" -o "$T/back" -q
want=$(ppl "$M")
is "the same perplexity as GGUF" "$(ppl "$T/m.gguf")" "$want"
is "the same perplexity as .quire" "$(ppl "$T/m.quire")" "$want"
is "the same perplexity from GGUF to a folder" "$(ppl "$T/back")" "$want"
succeeds "inspect the GGUF" "$QUIRE" inspect "$T/m.gguf" --tensors
prints "experts are seen one by one" 'model\.layers\.1\.mlp\.experts\.7\.up_proj\.weight'
# as llama.cpp has it, the router is f32 beside matrices of 16 bits
prints "the router is in floats" 'model\.layers\.1\.mlp\.gate\.weight +f32'

full="--data $T/calib.txt --ctx 64 --collect full -q"
succeeds "calibrate" "$QUIRE" calibrate "$M" $full -o "$T/full"
succeeds "calibrate on one thread" "$QUIRE" calibrate "$M" $full -o "$T/one" --threads 1
is "the same bytes for any number of threads" "$(cmp "$T/full" "$T/one" && echo same)" same
for i in 1 2; do succeeds "part $i" "$QUIRE" calibrate "$M" $full -o "$T/part$i" --shard $i/2; done
succeeds "merge" "$QUIRE" calibrate --merge "$T/part1" "$T/part2" -o "$T/merged"
is "the merge of the parts is the whole" "$(cmp "$T/full" "$T/merged" && echo same)" same
succeeds "importance matrix" "$QUIRE" calibrate "$M" --from "$T/full" -o "$T/im.gguf"
succeeds "importance matrix of the older form" "$QUIRE" calibrate "$M" --from "$T/full" -o "$T/im.dat"

# 128 tokens: none of the experts saw as many as the importance needs
succeeds "calibrate on little" "$QUIRE" calibrate "$M" --data "$T/calib.txt" --ctx 32 --windows 4 --collect full -q -o "$T/little"
succeeds "search" "$QUIRE" quantize "$M" --method search --scheme pure-q4_0 -o "$T/search.gguf" -q
search=$(kl "$T/search.gguf")
for method in imatrix awq gptq best; do
	succeeds "$method" "$QUIRE" quantize "$M" --stats "$T/full" --method $method --scheme pure-q4_0 -o "$T/$method.gguf" --json
	is "$method: all matrices of experts" "$(json "$T/out" matrices)" 48
	succeeds "$method, one thread" "$QUIRE" quantize "$M" --stats "$T/full" --method $method --scheme pure-q4_0 -o "$T/$method-1.gguf" -q --threads 1
	is "$method: the same bytes for any number of threads" "$(cmp "$T/$method.gguf" "$T/$method-1.gguf" && echo same)" same
	succeeds "$method on little" "$QUIRE" quantize "$M" --stats "$T/little" --method $method --scheme pure-q4_0 -o "$T/$method-2.gguf" --json \
		--report "$T/$method.json"
	says "$method: experts that saw too little" 'matrices of experts saw fewer'
	few=$(json "$T/out" few_tokens)
	is "$method: some of them" "$((few > 0 && few <= 48))" 1
	kl=$(kl "$T/$method.gguf")
	is "$method: as good as the search or better" "$(awk -v a="$kl" -v b="$search" 'BEGIN { print a != "" && a < 1.1 * b }')" 1
done
is "best: what was filled up is in the report" "$(grep -c '"chosen": "shared"' "$T/best.json")" "$few"
succeeds "statistics as an importance matrix" "$QUIRE" quantize "$M" --stats "$T/im.gguf" --scheme pure-q4_0 -o "$T/im-q.gguf" -q
near "the same importance from either file" "$(kl "$T/im-q.gguf")" "$(kl "$T/imatrix.gguf")" 0.05
succeeds "an importance matrix of the older form" "$QUIRE" quantize "$M" --stats "$T/im.dat" --scheme pure-q4_0 -o "$T/dat-q.gguf" -q

# one tensor of GGUF is in one type
exits 5 "an expert in another type, to GGUF" "$QUIRE" quantize "$M" --scheme pure-q4_0 --tensor '*.experts.3.up_proj.weight=q8_0' -o "$T/x.gguf"
says "an expert in another type: reason" "'blk.0.ffn_up_exps.weight' holds all experts in one type: .*experts.0.up_proj.weight is q4_0, .*experts.3.* is q8_0"
succeeds "an expert in another type, to .quire" "$QUIRE" quantize "$M" --scheme pure-q4_0 --tensor '*.experts.3.up_proj.weight=q8_0' -o "$T/x.quire" -q
succeeds "experts by role" "$QUIRE" quantize "$M" --scheme pure-q4_0 --tensor ffn_down_exps=q8_0 -o "$T/r.gguf" -q

for n in 1 2; do
	succeeds "training, $n threads" "$QUIRE" quantize "$M" --stats "$T/full" --distill 2 --scheme int2-g32 -o "$T/d$n.quire" --threads $n
	prints "training: all codes of experts" '^training: [0-9]+ passes, [0-9]+ of 61440 codes moved'
done
is "training: the same bytes for any number of threads" "$(cmp "$T/d1.quire" "$T/d2.quire" && echo same)" same
succeeds "attribute" "$QUIRE" verify "$T/imatrix.gguf" --against "$M" --data "$T/eval.txt" --ctx 64 --windows 2 --attribute tensors
prints "attribute: experts of a layer are one group" '^  layers\.1\.ffn_up_exps '
succeeds "compare" "$QUIRE" compare "$M" --data "$T/eval.txt" --ctx 64 --windows 2 --work "$T/wk" "$T/imatrix.gguf" "$T/best.gguf"
succeeds "fold" "$QUIRE" fold "$M" --kv-heads 1 --data "$T/calib.txt" --ctx 64 --windows 8 -o "$T/folded"
is "fold: experts are carried" "$(json <("$QUIRE" inspect "$T/folded" --json) active_parameters)" \
	"$(($(json <("$QUIRE" inspect "$M" --json) active_parameters) - 2 * 2 * 16 * 32))"
succeeds "share layers" "$QUIRE" fold "$M" --share-layers 0,0 --data "$T/calib.txt" --ctx 64 --windows 8 -o "$T/shared"
succeeds "generate" "$QUIRE" generate "$T/best.gguf" "One day" --tokens 4
done_testing
