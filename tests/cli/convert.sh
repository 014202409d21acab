# convert: any format to any format without loss, and every way to fail leaves nothing behind.
. "$(dirname "$0")/lib.sh"
left() { ls -A "$1" | wc -l; }

succeeds "demo to .quire" "$QUIRE" convert "$DEMO" -o "$T/a.quire"
prints "summary" '47 tensors, 6\.8 MiB, 16\.000 bits per weight'
succeeds "demo to compressed .quire" "$QUIRE" convert "$DEMO" -o "$T/c.quire" --compress
succeeds "demo to GGUF" "$QUIRE" convert "$DEMO" -o "$T/d.gguf"
succeeds ".quire to a folder" "$QUIRE" convert "$T/a.quire" -o "$T/from-a"
succeeds "compressed .quire to a folder" "$QUIRE" convert "$T/c.quire" -o "$T/from-c"
succeeds "GGUF to a folder" "$QUIRE" convert "$T/d.gguf" -o "$T/from-d" --dtype bf16
for x in a c d; do
	if cmp -s "$DEMO/model.safetensors" "$T/from-$x/model.safetensors"; then ok "weights through $x"; else not_ok "weights through $x"; fi
done
if diff -r "$DEMO" "$T/from-c" >/dev/null; then ok "all files through .quire"; else not_ok "all files through .quire"; fi
size=$(stat -c %s "$T/c.quire") full=$(stat -c %s "$T/a.quire")
if [ $((size * 4)) -le $((full * 3)) ]; then ok "--compress saves a quarter"; else not_ok "--compress saves a quarter ($size of $full)"; fi
succeeds "a .quire checks" "$QUIRE" inspect --check "$T/c.quire"

succeeds "f32 by --dtype" "$QUIRE" convert "$DEMO" -o "$T/f32" --dtype f32
succeeds "and back" "$QUIRE" convert "$T/f32" -o "$T/back" --dtype bf16
if cmp -s "$DEMO/model.safetensors" "$T/back/model.safetensors"; then ok "bf16 through f32"; else not_ok "bf16 through f32"; fi
succeeds "shards" "$QUIRE" convert "$DEMO" -o "$T/shards" --shard-size 2MB
if [ -e "$T/shards/model.safetensors.index.json" ]; then ok "an index"; else not_ok "an index"; fi
succeeds "shards to .quire" "$QUIRE" convert "$T/shards" -o "$T/s.quire" --json
is "json: tensors" "$(json "$T/out" tensors)" 47
is "json: format" "$(json "$T/out" format)" quire
is "a digest per shard" "$(head -c 20000 "$T/s.quire" | grep -aoE 'model-0000[0-9]-of-0000[0-9]\.safetensors\\":\\"[0-9a-f]{64}' | wc -l)" "$(ls "$T"/shards/*.safetensors | wc -l)"
sum=$(sha256sum <"$DEMO/model.safetensors" | cut -d' ' -f1)
is "sha256 of the source" "$(head -c 20000 "$T/a.quire" | grep -ac "$sum")" 1
succeeds "no hash" "$QUIRE" convert "$DEMO" -o "$T/n.quire" --no-source-hash
is "no digest" "$(head -c 20000 "$T/n.quire" | grep -ac "$sum")" 0
succeeds "threads 1" "$QUIRE" convert "$DEMO" -o "$T/t1.quire" --compress --threads 1
succeeds "threads 3" "$QUIRE" convert "$DEMO" -o "$T/t3.quire" --compress --threads 3
if cmp -s "$T/t1.quire" "$T/t3.quire"; then ok "same bytes for any thread count"; else not_ok "same bytes for any thread count"; fi

mkdir "$T/dry"
succeeds "--dry-run" "$QUIRE" convert "$DEMO" -o "$T/dry/x.quire" --dry-run
prints "the plan" '^model\.norm\.weight +\[256\] +bf16 +-> bf16 '
is "--dry-run writes nothing" "$(left "$T/dry")" 0

# what a format does not keep is known before it is written: a dry run says what the run will
mkdir "$T/window" && cp "$DEMO"/* "$T/window/"
sed -i 's/LlamaForCausalLM/MistralForCausalLM/; s/"model_type": *"llama"/"model_type": "mistral", "sliding_window": 100/' "$T/window/config.json"
for command in "convert" "quantize -s q8_0" "fold --kv-heads 4 --method mean"; do
	name=${command%% *}
	succeeds "what is lost: $name" "$QUIRE" $command "$T/window" -o "$T/dry/x.gguf" -q
	says "what is lost: $name: said" "warning: 5 of 5 layers have a sliding window of 100 tokens"
	cp "$T/err" "$T/said" && rm "$T/dry/x.gguf"
	succeeds "what is lost: $name --dry-run" "$QUIRE" $command "$T/window" -o "$T/dry/x.gguf" -q --dry-run --json
	is "what is lost: $name --dry-run: the same" "$(cat "$T/err")" "$(cat "$T/said")"
	is "what is lost: $name --dry-run: in JSON" "$(sed -n '/"warnings"/,/]/p' "$T/out" | grep -c '5 of 5 layers')" 1
	is "what is lost: $name --dry-run: nothing is written" "$(left "$T/dry")" 0
done

exits 2 "no output" "$QUIRE" convert "$DEMO"
exits 2 "exists" "$QUIRE" convert "$DEMO" -o "$T/a.quire"
says "exists: message" "a\.quire' exists; --force"
succeeds "--force" "$QUIRE" convert "$DEMO" -o "$T/a.quire" --force
exits 2 "onto itself" "$QUIRE" convert "$T/a.quire" -o "$T/a.quire" --force
says "onto itself: message" "is an input as well"
ln -s "$T/a.quire" "$T/link.quire"
exits 2 "onto itself through a link" "$QUIRE" convert "$T/a.quire" -o "$T/link.quire" --force
exits 2 "a folder that is not empty" "$QUIRE" convert "$DEMO" -o "$T/from-a"
exits 2 "unknown --to" "$QUIRE" convert "$DEMO" -o "$T/dry/x" --to zip
says "unknown --to: message" "takes one of: .*gguf"
exits 2 "unknown --dtype" "$QUIRE" convert "$DEMO" -o "$T/dry/x" --dtype q4_k
says "unknown --dtype: message" "quire quantize"
exits 2 "--compress elsewhere" "$QUIRE" convert "$DEMO" -o "$T/dry/x.gguf" --compress
exits 4 "missing input" "$QUIRE" convert "$T/nowhere" -o "$T/dry/x.quire"
says "missing input: message" "nowhere"
exits 4 "missing target folder" "$QUIRE" convert "$DEMO" -o "$T/no/such/x.quire"

succeeds "quantize for the next" "$QUIRE" quantize "$DEMO" -o "$T/q.gguf" -s q4_k --method rtn
exits 5 "codec that a folder cannot hold" "$QUIRE" convert "$T/q.gguf" -o "$T/dry/q"
says "that codec: message" "tensor .* would be q[48]_[k0], which hf cannot hold; (nearest: [a-z0-9-]+; )?write --to gguf or quire; --dtype bf16"
succeeds "decoded it can" "$QUIRE" convert "$T/q.gguf" -o "$T/q-hf" --dtype bf16
succeeds "GGUF to .quire keeps the blocks" "$QUIRE" convert "$T/q.gguf" -o "$T/q.quire"
succeeds "and back" "$QUIRE" convert "$T/q.quire" -o "$T/q2.gguf"
"$QUIRE" inspect --tensors "$T/q.gguf" | grep '^model' >"$T/i1"
"$QUIRE" inspect --tensors "$T/q2.gguf" | grep '^model' >"$T/i2"
if [ -s "$T/i1" ] && diff "$T/i1" "$T/i2" >/dev/null; then ok "same blocks"; else not_ok "same blocks"; fi

# weights that must not be
cp -r "$DEMO" "$T/nan"
chmod -R u+w "$T/nan"
printf '\300\177' | dd of="$T/nan/model.safetensors" bs=1 seek=$(($(stat -c %s "$T/nan/model.safetensors") - 2000)) conv=notrunc 2>/dev/null
exits 3 "NaN" "$QUIRE" convert "$T/nan" -o "$T/dry/x.quire"
says "NaN: message" "nan: tensor model\.[a-z0-9_.]+: the value at row [0-9]+, column [0-9]+ is NaN"
is "NaN leaves nothing" "$(left "$T/dry")" 0

# damage and truncation
head -c 3000000 "$T/a.quire" >"$T/cut.quire"
exits 3 "cut off" "$QUIRE" convert "$T/cut.quire" -o "$T/dry/x"
says "cut off: message" "cut\.quire: .*(truncated|bytes)"
cp "$T/a.quire" "$T/flip.quire"
printf 'x' | dd of="$T/flip.quire" bs=1 seek=4000000 conv=notrunc 2>/dev/null
exits 3 "a flipped byte" "$QUIRE" inspect --check "$T/flip.quire"
says "a flipped byte: message" "flip\.quire: tensor model\.[a-z0-9_.]+: the checksum does not match"

# a full disk, by a limit on file size
for x in x.quire x.gguf x; do
	(ulimit -f 1000; trap '' XFSZ; "$QUIRE" convert "$DEMO" -o "$T/dry/$x") >"$T/out" 2>"$T/err"
	is "full disk: $x" $? 4
	says "full disk: $x: message" "cannot write"
	is "full disk leaves nothing: $x" "$(left "$T/dry")" 0
done

# and a file system that is really full, where one may be mounted
mkdir "$T/small"
if [ "$(id -u)" -eq 0 ] && mount -t tmpfs -o size=1m tmpfs "$T/small" 2>/dev/null; then
	for x in x.quire x.gguf x; do
		exits 4 "no space: $x" "$QUIRE" convert "$DEMO" -o "$T/small/$x"
		says "no space: $x: message" "cannot write '.*': No space left on device"
		is "no space leaves nothing: $x" "$(left "$T/small")" 0
	done
	umount "$T/small"
else skip "no space: needs to be root and to mount"; fi

if [ "$(id -u)" -ne 0 ]; then
	mkdir "$T/locked" && chmod 555 "$T/locked"
	exits 4 "a folder that is not writable" "$QUIRE" convert "$DEMO" -o "$T/locked/x.quire"
	mkdir "$T/unreadable" && chmod 000 "$T/unreadable"
	exits 4 "an unreadable folder" "$QUIRE" convert "$T/unreadable" -o "$T/dry/x.quire"
else
	skip "a folder that is not writable (root)"
	skip "an unreadable folder (root)"
fi

# two files of a folder that disagree: the GGUF has what encoding does, and the command says so (with --quiet, too)
mkdir "$T/bos" && cp "$DEMO"/* "$T/bos/" && chmod -R u+w "$T/bos"
sed -i 's/"add_bos_token": true/"add_bos_token": false/' "$T/bos/tokenizer_config.json"
succeeds "contradicting add_bos_token" "$QUIRE" convert "$T/bos" -q -o "$T/bos.gguf"
says "contradicting add_bos_token: said" "^quire: warning: tokenizer_config.json says add_bos_token: false.*written as add_bos_token: true"
succeeds "contradicting add_bos_token: JSON" "$QUIRE" convert "$T/bos" --json -f -o "$T/bos.gguf"
prints "contradicting add_bos_token: in JSON" '"tokenizer_config.json says add_bos_token: false'
succeeds "without a contradiction" "$QUIRE" convert "$DEMO" --json -f -o "$T/bos.gguf"
is "without a contradiction: no warning" "$(grep -c warning "$T/err")" 0

# gemma2 through GGUF: caps, windows and norms plus one come back; the scale of scores has no key there, and readers take head_dim's
mkdir "$T/gemma2" && cp "$ROOT"/tests/golden/model/gemma2/{config.json,model.safetensors} "$T/gemma2/" && chmod -R u+w "$T/gemma2"
exits 5 "gemma2: another scale of scores" "$QUIRE" convert "$T/gemma2" -q -o "$T/gemma2.gguf"
says "gemma2: another scale of scores, said" "GGUF has no key for query_pre_attn_scalar 24"
sed -i 's/"query_pre_attn_scalar": 24/"query_pre_attn_scalar": 16/' "$T/gemma2/config.json"
succeeds "gemma2: to GGUF" "$QUIRE" convert "$T/gemma2" -q -o "$T/gemma2.gguf"
succeeds "gemma2: and back" "$QUIRE" convert "$T/gemma2.gguf" -q --dtype f16 -o "$T/gemma2-back"
for key in query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping sliding_window; do
	is "gemma2: $key" "$(json "$T/gemma2-back/config.json" $key)" "$(json "$T/gemma2/config.json" $key)"
done
is "gemma2: windows" "$(grep -c '"sliding_attention"' "$T/gemma2-back/config.json")" 2
succeeds "gemma2: without GGUF" "$QUIRE" convert "$T/gemma2" -q -o "$T/gemma2-plain"
if cmp -s "$T/gemma2-plain/model.safetensors" "$T/gemma2-back/model.safetensors"; then ok "gemma2: tensors"; else not_ok "gemma2: tensors"; fi

# interrupted: stopped as soon as a temporary is there, then told to end (a script's background jobs ignore INT)
h='{"big.weight":{"dtype":"F16","shape":[8192,8192],"data_offsets":[0,134217728]}}'
{ printf "\\$(printf %o ${#h})\0\0\0\0\0\0\0%s" "$h"; } >"$T/big.safetensors"
truncate -s $((8 + ${#h} + 134217728)) "$T/big.safetensors"
for x in x.quire x; do
	mkdir "$T/stop-$x"
	"$QUIRE" convert "$T/big.safetensors" -o "$T/stop-$x/$x" --dtype f32 --threads 1 >/dev/null 2>&1 &
	pid=$!
	while [ "$(left "$T/stop-$x")" -eq 0 ] && kill -0 $pid 2>/dev/null; do :; done
	kill -STOP $pid; kill -TERM $pid; kill -CONT $pid
	wait $pid
	is "interrupted: $x" $? 143
	is "interrupted leaves nothing: $x" "$(left "$T/stop-$x")" 0
done
done_testing
