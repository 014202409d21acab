# Inputs that are no files, that change while they are read, and a system that refuses memory, room or threads.
. "$(dirname "$0")/lib.sh"
export OMP_WAIT_POLICY=passive
text=$ROOT/examples/demo.eval.txt
copy() { rm -rf "$T/m" && mkdir "$T/m" && cp "$DEMO"/* "$T/m/" && chmod u+w "$T"/m/*; }
left() { ls -A "$T" | grep -c -- tmp-; }

# pipes and devices among the files of a model are refused by name, at once; a text may be one
for name in config.json tokenizer.json model.safetensors chat_template.jinja generation_config.json; do
	copy
	rm -f "$T/m/$name" && mkfifo "$T/m/$name"
	exits 4 "a pipe for $name" timeout 20 "$QUIRE" inspect "$T/m"
	says "a pipe for $name: the reason" "m/$name': it is not a regular file"
done
copy
rm "$T/m/model.safetensors" && mkfifo "$T/m/model.safetensors.index.json"
exits 4 "a pipe for the index" timeout 20 "$QUIRE" inspect "$T/m"
copy
ln -sf /dev/zero "$T/m/tokenizer_config.json"
exits 4 "a device for a side file" timeout 20 "$QUIRE" inspect "$T/m"
exits 4 "a pipe for a .quire" timeout 20 "$QUIRE" inspect <(cat "$DEMO/config.json")
succeeds "a text from a pipe" "$QUIRE" tokenize "$DEMO" --count --file <(echo "One day")
is "a text from a pipe: its tokens" "$(cat "$T/out")" 4

# the model is mapped before the text arrives, and cut short in between
copy
mkfifo "$T/text"
"$QUIRE" verify "$T/m" --data "$T/text" --ctx 64 --chunks 4 --save-baseline "$T/base" >"$T/out" 2>"$T/err" &
exec 3>"$T/text"
truncate -s 100000 "$T/m/model.safetensors"
head -c 20000 "$text" >&3
exec 3>&-
wait $!
is "a model cut short while it is read" $? 4
says "a model cut short while it is read: the reason" "cannot read '.*m/model.safetensors': it was cut short while it was read"
is "a model cut short while it is read: one line" "$(wc -l <"$T/err")" 1
is "a model cut short while it is read: nothing left" "$(left)" 0

# a flipped bit of a .quire, in a tensor as it is or in planes, in a side file or in the manifest: no command goes on with it
"$QUIRE" convert "$DEMO" -o "$T/plain.quire" -q
"$QUIRE" convert "$DEMO" -o "$T/packed.quire" --compress -q
head -c 30000 "$text" >"$T/few"
flip() { # FROM TO OFFSET: byte OFFSET with its lowest bit turned
	local byte
	cp "$1" "$2" && byte=$(od -An -tu1 -j"$3" -N1 "$1" | tr -d ' ')
	printf "\\$(printf '%03o' $((byte ^ 1)))" | dd of="$2" bs=1 seek="$3" conv=notrunc 2>/dev/null
}
for kind in plain packed; do
	size=$(stat -c %s "$T/$kind.quire") header=$(od -An -tu8 -N8 "$T/$kind.quire" | tr -d ' ')
	flip "$T/$kind.quire" "$T/flip.quire" $((header + 8 + (size - header - 8) * 2 / 3))
	b="$T/flip.quire"
	for command in "convert $b -o $T/x" "convert $b -o $T/x.gguf" "convert $b -o $T/x.quire" "quantize $b -s q8_0 -o $T/x.gguf" \
		"quantize $b -s q4_0 --method imatrix --data $T/few --samples 4 --ctx 64 -o $T/x.gguf" "verify $b --data $T/few --ctx 64 --chunks 1" \
		"calibrate $b --data $T/few --ctx 64 --samples 2 -o $T/x" "fold $b --kv-heads 4 --method mean -o $T/x.quire" "generate $b One --tokens 2" \
		"compare $b --data $T/few --ctx 64 --chunks 1 -s q8_0 --work $T/x"; do
		exits 3 "a flipped bit, $kind: ${command%% *}" "$QUIRE" $command -q
		says "a flipped bit, $kind: ${command%% *}: the reason" 'flip.quire.*tensor .*(checksum does not match|deflated data is damaged)'
		is "a flipped bit, $kind: ${command%% *}: nothing is made" "$(ls -A "$T" | grep -cE '^x|tmp-')" 0
		rm -rf "$T"/x*
	done
done
# a side file is looked at by those who need it: whoever does not goes on, whoever hands it on says why not
for file in config.json tokenizer.model generation_config.json; do
	at=$(grep -aoE "\"__file__\.$file\":[^}]*\"data_offsets\":\[[0-9]+" "$T/plain.quire" | head -n 1 | grep -oE '[0-9]+$')
	header=$(od -An -tu8 -N8 "$T/plain.quire" | tr -d ' ')
	flip "$T/plain.quire" "$T/flip.quire" $((header + 8 + at + 30))
	succeeds "a flipped bit in $file: its tensors are listed" "$QUIRE" inspect "$T/flip.quire" --tensors
	is "a flipped bit in $file: every tensor" "$(grep -cE '^model\.' "$T/out")" 47
	for command in "inspect $T/flip.quire --check" "convert $T/flip.quire -o $T/x" "convert $T/flip.quire -o $T/x.gguf" \
		"convert $T/flip.quire -o $T/x.quire" "quantize $T/flip.quire -s q8_0 -o $T/x.quire"; do
		exits 3 "a flipped bit in $file: ${command%%.*}" "$QUIRE" $command -q
		says "a flipped bit in $file: the reason" "flip.quire: file $file: .*(checksum does not match|damaged)"
		is "a flipped bit in $file: one line" "$(wc -l <"$T/err")" 1
		is "a flipped bit in $file: nothing is made" "$(ls -A "$T" | grep -cE '^x|tmp-')" 0
	done
done
succeeds "a flipped bit in generation_config.json: text is measured" "$QUIRE" verify "$T/flip.quire" --data "$T/few" --ctx 64 --chunks 1 -q
exits 3 "a flipped bit in generation_config.json: which says where text ends" "$QUIRE" generate "$T/flip.quire" One --tokens 2

at=$(grep -abo 'recipe' "$T/plain.quire" | head -n 1 | cut -d: -f1)
flip "$T/plain.quire" "$T/flip.quire" $((at + 12))
exits 3 "a flipped bit in the manifest" "$QUIRE" inspect "$T/flip.quire"
says "a flipped bit in the manifest: the reason" 'flip.quire: manifest: its checksum does not match'

# limits: on the size of files, on memory, on threads
exits 4 "no room for a file of this size" bash -c 'ulimit -f 1000; exec "$@"' - "$QUIRE" convert "$DEMO" -o "$T/big.gguf"
says "no room for a file of this size: the reason" "cannot write '.*big.gguf': File too large"
is "no room for a file of this size: nothing left" "$(ls -A "$T" | grep -c big)" 0
if [ -z "${SANITIZED:-}" ]; then
	for kib in 100000 200000 300000; do
		exits 6 "$kib KiB of memory" timeout 60 bash -c 'ulimit -v '$kib'; exec "$@"' - "$QUIRE" verify "$DEMO" --data "$text" --chunks 1 --threads 2
		says "$kib KiB of memory: the reason" 'out of memory'
	done
else skip "limits on memory under a sanitizer"; fi
if cc=$(command -v cc) && echo 'int pthread_create(void *a, void *b, void *c, void *d) { return (void)a, (void)b, (void)c, (void)d, 11; }' |
	"$cc" -shared -fPIC -w -x c - -o "$T/nothread.so" 2>/dev/null && [ -z "${SANITIZED:-}" ]; then
	exits 6 "no thread for OpenMP" env LD_PRELOAD="$T/nothread.so" "$QUIRE" verify "$DEMO" --data "$text" --chunks 1 --threads 2
	says "no thread for OpenMP: the reason" 'out of memory: a library could not get memory or start a thread'
	succeeds "no thread: one does it all" env LD_PRELOAD="$T/nothread.so" "$QUIRE" convert "$DEMO" -o "$T/one.quire" --threads 1
	"$QUIRE" convert "$DEMO" -o "$T/two.quire" -q
	is "no thread: the same file" "$(cmp "$T/one.quire" "$T/two.quire" 2>&1)" ""
else skip "a system without threads"; fi
done_testing
