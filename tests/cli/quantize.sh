# quantize: schemes, overrides, sizes as planned, and what is refused.
. "$(dirname "$0")/lib.sh"

# every scheme of each family: the size that --dry-run says is the size that comes out
for s in Q8_0 Q6_K Q5_K_M Q4_K_M Q4_K_S Q4_0 Q4_1 Q5_0 Q3_K_M Q2_K IQ4_XS IQ4_NL F16 q4_k pure-q4_0 int4-g128 int8-g32 W4A16 W8A16 mxfp4; do
	succeeds "$s: plan" "$QUIRE" quantize "$DEMO" -s $s --dry-run --json
	planned=$(json "$T/out" bytes)
	succeeds "$s: quantize" "$QUIRE" quantize "$DEMO" -s $s --method rtn -o "$T/$s.quire" --json
	is "$s: bytes as planned" "$(json "$T/out" bytes)" "$planned"
	file=$(json "$T/out" file_bytes)
	is "$s: file size reported" "$file" "$(stat -c %s "$T/$s.quire")"
	if [ "$file" -gt "$planned" ] && [ $((file - planned)) -lt 80000 ]; then ok "$s: little besides"; else not_ok "$s: $file for $planned"; fi
done
succeeds "it checks" "$QUIRE" inspect --check "$T/Q4_K_M.quire"

succeeds "dry run as a table" "$QUIRE" quantize "$DEMO" -s Q4_K_M -n
prints "tied embedding" '^model\.embed_tokens\.weight +\[1024, 256\] +bf16 +-> q6_k +210\.0 KiB +embedding that is also the output head$'
prints "norm" '^model\.norm\.weight +\[256\] +bf16 +-> f32 '
prints "total" '^47 tensors, 2\.1 MiB \(2170880 bytes\), 4\.904 bits per weight'

printf '# values matter\nattn_v = q8_0\n*.layers.0.* = q6_k  # first layer\n' >"$T/recipe"
succeeds "recipe and overrides" "$QUIRE" quantize "$DEMO" -s q4_k --recipe "$T/recipe" -t embed=q5_k -t '*.layers.4.mlp.up_proj.weight=keep' -n
prints "file: role" '^model\.layers\.3\.self_attn\.v_proj\.weight .* -> q8_0 .* rule of the recipe'
prints "file: the later line wins" '^model\.layers\.0\.self_attn\.v_proj\.weight .* -> q6_k '
prints "norms are left alone" '^model\.layers\.0\.input_layernorm\.weight .* -> f32 '
prints "--tensor role" '^model\.embed_tokens\.weight .* -> q5_k '
prints "--tensor keep" '^model\.layers\.4\.mlp\.up_proj\.weight .* bf16 +-> bf16 '
prints "the rest" '^model\.layers\.2\.mlp\.up_proj\.weight .* -> q4_k '

succeeds "threads 1" "$QUIRE" quantize "$DEMO" -s Q4_K_M -o "$T/t1.gguf" --threads 1
succeeds "threads 3" "$QUIRE" quantize "$DEMO" -s Q4_K_M -o "$T/t3.gguf" --threads 3
if cmp -s "$T/t1.gguf" "$T/t3.gguf"; then ok "same bytes for any thread count"; else not_ok "same bytes for any thread count"; fi
succeeds "search is the default" "$QUIRE" quantize "$DEMO" -s Q4_K_M -o "$T/search.gguf" --method search
if cmp -s "$T/t1.gguf" "$T/search.gguf"; then ok "the same file"; else not_ok "the same file"; fi
# what llama-quantize writes for this model and type: --pure, embedding and head q8_0
succeeds "one type" "$QUIRE" quantize "$DEMO" -s pure-q4_k -o "$T/pure.gguf" --method rtn
if [ "$(stat -c %s "$T/pure.gguf")" -le 2158368 ]; then ok "no larger than llama.cpp's"; else not_ok "larger than llama.cpp's: $(stat -c %s "$T/pure.gguf")"; fi
succeeds "rtn" "$QUIRE" quantize "$DEMO" -s Q4_K_M -o "$T/rtn.gguf" --method rtn
if cmp -s "$T/t1.gguf" "$T/rtn.gguf"; then not_ok "rtn is another file"; else ok "rtn is another file"; fi
succeeds "-q prints nothing" "$QUIRE" quantize "$DEMO" -s Q8_0 -o "$T/quiet.gguf" -q
is "-q: stdout" "$(cat "$T/out" "$T/err")" ""

mkdir "$T/none"
exits 2 "no scheme" "$QUIRE" quantize "$DEMO" -o "$T/none/x.gguf"
says "no scheme: message" "--scheme"
exits 2 "unknown scheme" "$QUIRE" quantize "$DEMO" -o "$T/none/x.gguf" -s Q7_K
says "unknown scheme: message" "unknown scheme 'Q7_K'"
exits 2 "unknown method" "$QUIRE" quantize "$DEMO" -o "$T/none/x.gguf" -s Q8_0 --method magic
says "unknown method: message" "rtn"
exits 2 "bad rule" "$QUIRE" quantize "$DEMO" -o "$T/none/x.gguf" -s Q8_0 -t attn_v
says "bad rule: message" "PATTERN=CODEC"
printf 'attn_v = q8_0\nattn_k : q8_0\n' >"$T/bad"
exits 3 "bad recipe" "$QUIRE" quantize "$DEMO" -o "$T/none/x.gguf" -s Q8_0 --recipe "$T/bad"
says "bad recipe: message" "bad: line 2: "
exits 4 "missing recipe" "$QUIRE" quantize "$DEMO" -o "$T/none/x.gguf" -s Q8_0 --recipe "$T/nowhere"
exits 5 "quantized already" "$QUIRE" quantize "$T/Q8_0.quire" -o "$T/none/x.gguf" -s Q4_K_M
says "quantized already: message" "Q8_0\.quire: tensor .* is stored as q8_0 already"
exits 5 "a folder cannot hold blocks" "$QUIRE" quantize "$DEMO" -o "$T/none/x" -s Q4_K_M
says "a folder: message" "would be q[468]_[k0], which hf cannot hold; nearest: int[48]-[a-z0-9-]*; write --to gguf or quire$"
# rows of 40 and blocks of 256 or 32: one line says so; the advice names what holds the codec
G=$ROOT/tests/golden/model/llama-linear
succeeds "rows that blocks do not divide" "$QUIRE" quantize "$G" -o "$T/none/x.quire" -s int4-g32 --dry-run
is "a short last group is no fallback" "$(wc -l <"$T/err")" 0
exits 2 "rows that blocks do not divide: nothing would be quantized" "$QUIRE" quantize "$G" -o "$T/none/x.quire" -s q4_k --dry-run
says "rows that blocks do not divide: said" "^14 of 16 matrices have rows of 40, which q8_0's 32 and q4_k's 256 do not divide: f16 \(and so with 2 of other rows\)"
says "rows that blocks do not divide: refused" "llama-linear: nothing would be quantized by q4_k: no tensor is a matrix that it makes smaller"
is "a line each" "$(wc -l <"$T/err")" 2
succeeds "no fallback, no word" "$QUIRE" quantize "$DEMO" -o "$T/none/x.quire" -s Q4_K_M --dry-run
is "no fallback, no word: nothing" "$(wc -c <"$T/err")" 0
# --for chooses what is left open, and says what a program does not load
for who in vllm=hf,int4-g128 mlx=mlx,int4-g64 llama.cpp=gguf,q4_k_m; do
	succeeds "--for ${who%=*}" "$QUIRE" quantize "$DEMO" -o "$T/none/for" --for "${who%=*}" --dry-run --json
	is "--for ${who%=*}: scheme" "$(json "$T/out" recipe)" "${who#*,}"
done
exits 2 "--for a program that loads others" "$QUIRE" quantize "$DEMO" -o "$T/none/x.gguf" --for mlx
says "--for a program that loads others: message" "mlx does not load gguf; it loads mlx"
exits 5 "GGUF cannot hold groups" "$QUIRE" quantize "$DEMO" -o "$T/none/x.gguf" -s int4-g128
says "GGUF cannot hold groups: what does" "would be int[48]-g128, which gguf cannot hold; nearest: q[48]_0; write --to quire or gptq or hf$"
# a folder's codes are described by config.json: without one, nobody could read them
mkdir "$T/bare" && cp "$DEMO/model.safetensors" "$T/bare/"
for dry in "" --dry-run; do
	exits 5 "weights alone to a folder $dry" "$QUIRE" quantize "$T/bare/model.safetensors" -o "$T/none/x" -s int8-g32 $dry
	says "weights alone to a folder $dry: why" "none/x: how a folder's quantized weights are stored stands in its config.json, and the model has none"
	exits 5 "weights alone to GGUF $dry" "$QUIRE" quantize "$T/bare/model.safetensors" -o "$T/none/x.gguf" -s q8_0 $dry
	says "weights alone to GGUF $dry: why" "none/x.gguf: GGUF needs to know the architecture of the model"
done
succeeds "weights alone to .quire" "$QUIRE" quantize "$T/bare/model.safetensors" -o "$T/bare/x.quire" -s int8-g32
is "nothing was written" "$(ls -A "$T/none" | wc -l)" 0
succeeds "--requantize" "$QUIRE" quantize "$T/Q8_0.quire" -o "$T/again.gguf" -s Q4_K_M --requantize

# weights that must not be: infinity, and a bf16 value beyond f16
cp -r "$DEMO" "$T/inf"
chmod -R u+w "$T/inf"
at=$(($(stat -c %s "$T/inf/model.safetensors") - 100000))
printf '\200\377' | dd of="$T/inf/model.safetensors" bs=1 seek=$at conv=notrunc 2>/dev/null
exits 3 "infinity" "$QUIRE" quantize "$T/inf" -o "$T/none/x.gguf" -s Q4_K_M
says "infinity: message" "inf: tensor model\.[a-z0-9_.]+: the value at row [0-9]+, column [0-9]+ is infinite"
printf '\200\107' | dd of="$T/inf/model.safetensors" bs=1 seek=$at conv=notrunc 2>/dev/null
exits 3 "too large for f16" "$QUIRE" quantize "$T/inf" -o "$T/none/x.gguf" -s F16
says "too large: message" "the value 65536 at row [0-9]+, column [0-9]+ is too large for f16"
is "nothing was left" "$(ls -A "$T/none" | wc -l)" 0
done_testing
