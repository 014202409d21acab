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
