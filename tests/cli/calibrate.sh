# calibrate: statistics of a model, in parts, resumed, merged, and refused where they do not belong.
. "$(dirname "$0")/lib.sh"

head -c 40000 "$ROOT/examples/demo.calib.txt" >"$T/text.txt"
few="--ctx 64 --samples 96 --collect full -q"
size() { wc -c <"$1"; }

succeeds "a whole run" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/whole" $few --json
is "says how many tokens" "$(json "$T/out" tokens)" 6144
is "leaves no working file" "$(ls "$T" | grep -c resume)" 0
succeeds "once more" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/again" $few --threads 1
is "the same bytes for any number of threads" "$(cmp "$T/whole" "$T/again" && echo same)" same

# parts: 96 windows of 64 tokens are three batches
succeeds "a text through a pipe" bash -c 'cat "$1" | "$2" calibrate "$3" --data - -o "$4" '"$few" - "$T/text.txt" "$QUIRE" "$DEMO" "$T/piped"
is "a text through a pipe: the same bytes" "$(cmp "$T/whole" "$T/piped" && echo same)" same
for i in 1 2 3; do succeeds "part $i" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/part$i" $few --shard $i/3; done
succeeds "merge" "$QUIRE" calibrate --merge "$T/part3" "$T/part1" "$T/part2" -o "$T/merged"
prints "merge counts tokens" "6144 tokens \(96 of 96 windows"
is "the merge of the parts has the size of the whole" "$(size "$T/merged")" "$(size "$T/whole")"
# sums in f64 of what was rounded to f32: bytes may differ in last places, where batches differ by 2^29 in size
differ=$(cmp -l "$T/whole" "$T/merged" | wc -l)
is "the merge of the parts is the whole" "$((differ * 10000 < $(size "$T/whole")))" 1
succeeds "merge of two parts" "$QUIRE" calibrate --merge "$T/part1" "$T/part2" -o "$T/two"
prints "an incomplete merge says so" "of 96 windows"
succeeds "merge of a merge" "$QUIRE" calibrate --merge "$T/two" "$T/part3" -o "$T/merged2"
differ=$(cmp -l "$T/whole" "$T/merged2" | wc -l)
is "merging in steps is merging at once" "$((differ * 10000 < $(size "$T/whole")))" 1
exits 3 "a part counted twice" "$QUIRE" calibrate --merge "$T/part1" "$T/part1" -o "$T/x"
says "a part counted twice: reason" "the same window 0"
exits 2 "more parts than batches" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/x" $few --shard 1/4
says "more parts than batches: reason" "fewer than 4 shards"
exits 2 "a part that is none" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/x" $few --shard 4/3
exits 7 "merge of two kinds" sh -c "'$QUIRE' calibrate '$DEMO' --data '$T/text.txt' -o '$T/im' --ctx 64 --samples 1 -q && '$QUIRE' calibrate --merge '$T/whole' '$T/im' -o '$T/x'"
is "nothing is left of refused merges" "$(ls -A "$T" | grep -c '^\.\?x')" 0

# killed once the first layer is done, wherever it is by then; then finished
"$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/resumed" $few >/dev/null 2>&1 &
pid=$!
while kill -0 $pid 2>/dev/null && [ "$(od -An -tu1 -j40 -N1 "$T/resumed.resume" 2>/dev/null | tr -d ' ')" != 1 ]; do :; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
cp "$T/resumed.resume" "$T/kept" 2>/dev/null
exits 2 "starting anew" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/resumed" $few
says "starting anew: the reason" "an interrupted run left '.*resumed.resume': --resume goes on with it, --force starts anew"
is "starting anew: what was left is still there" "$(cmp "$T/kept" "$T/resumed.resume" && echo same)" same
for form in calibrate "quantize -s q8_0 -m imatrix --to quire"; do
	"$QUIRE" $form "$DEMO" --data "$T/text.txt" -o "$T/early" --ctx 64 --samples 0 >/dev/null 2>"$T/err" &
	pid=$!
	while kill -0 $pid 2>/dev/null && ! ls -A "$T" | grep -q '^\.\?early'; do :; done
	kill -TERM $pid 2>/dev/null
	wait $pid 2>/dev/null
	is "interrupted before there is something to keep: ${form%% *}" "$? $(ls -A "$T" | grep -c early)" "143 0"
done
"$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/told" --ctx 64 --samples 0 --collect full >/dev/null 2>"$T/err" &
pid=$!
while kill -0 $pid 2>/dev/null && [ "$(od -An -tu1 -j40 -N1 "$T/told.resume" 2>/dev/null | tr -d ' ')" != 1 ]; do :; done
kill -TERM $pid 2>/dev/null
wait $pid 2>/dev/null
is "interrupted" $? 143
says "interrupted: how to go on" 'quire: interrupted; .*told.resume has what was done; the same command with --resume goes on'
rm -f "$T"/told* "$T/kept"
succeeds "resume" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/resumed" $few --resume
is "resumed and whole are the same" "$(cmp "$T/whole" "$T/resumed" && echo same)" same
is "resume leaves no working file" "$(ls "$T" | grep -c resume$)" 0

# files of text
gzip -c "$T/text.txt" >"$T/text.gz"
printf '%s' "$(cat "$T/text.txt")" >"$T/plain.txt"
{ printf '{"text": "'; sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' "$T/plain.txt" | awk '{ printf "%s%s", (NR > 1 ? "\\n" : ""), $0 }'; echo '"}'; } >"$T/text.jsonl"
one="--ctx 64 --samples 2 -q"
succeeds "plain" "$QUIRE" calibrate "$DEMO" --data "$T/plain.txt" -o "$T/a" $one
succeeds "JSON lines" "$QUIRE" calibrate "$DEMO" --data "$T/text.jsonl" -o "$T/b" $one
is "JSON lines are the same as plain text" "$(cmp "$T/a" "$T/b" && echo same)" same
succeeds "plain, whole" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/a" $one
succeeds "gzip" "$QUIRE" calibrate "$DEMO" --data "$T/text.gz" -o "$T/b" $one
is "gzip is the same as plain text" "$(cmp "$T/a" "$T/b" && echo same)" same
: >"$T/empty"
exits 3 "empty text" "$QUIRE" calibrate "$DEMO" --data "$T/empty" -o "$T/x"
says "empty text: reason" "empty: the text is empty"
echo "Once upon a time" >"$T/short"
exits 3 "short text" "$QUIRE" calibrate "$DEMO" --data "$T/short" -o "$T/x"
says "short text: reason" "short: the text has [0-9]+ tokens, fewer than one window"
head -c 5000 "$T/text.gz" >"$T/cut.gz"
exits 3 "truncated gzip" "$QUIRE" calibrate "$DEMO" --data "$T/cut.gz" -o "$T/x"
printf '{"text": "a"}\n{"body": "b"}\n' >"$T/bad.jsonl"
exits 3 "JSON line without text" "$QUIRE" calibrate "$DEMO" --data "$T/bad.jsonl" -o "$T/x"
says "JSON line without text: reason" "bad.jsonl: line 2: there is no string"
exits 2 "no text" "$QUIRE" calibrate "$DEMO" -o "$T/x"
exits 2 "output is a folder" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T" $one
is "nothing is left of refused texts" "$(ls -A "$T" | grep -c '^\.\?x')" 0

# the output is not one of the inputs, nor anything that only looks like a place for statistics
cp "$T/text.txt" "$T/only.txt"
exits 2 "the text as output" "$QUIRE" calibrate "$DEMO" --data "$T/only.txt" -o "$T/only.txt" $one --force
says "the text as output: reason" "only.txt. is an input as well"
is "the text as output: it is still there" "$(cmp "$T/text.txt" "$T/only.txt" && echo same)" same
exits 2 "another text as output" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/only.txt" $one
says "another text as output: reason" "only.txt' exists and holds no statistics; --force overwrites it"
succeeds "another text as output, asked for" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/only.txt" $one --force
succeeds "statistics over statistics" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/only.txt" $one
mkdir "$T/model" && cp "$DEMO"/* "$T/model/" && chmod u+w "$T/model/model.safetensors"
exits 2 "the model's weights as output" "$QUIRE" calibrate "$T/model" --data "$T/text.txt" -o "$T/model/model.safetensors" $one
is "the model's weights as output: they are still there" "$(cmp "$DEMO/model.safetensors" "$T/model/model.safetensors" && echo same)" same
echo mine >"$T/y.dat.stats"
succeeds "another file named like the output" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/y.dat" $one
is "another file named like the output: it is still there" "$(cat "$T/y.dat.stats")" mine
exits 4 "no such folder" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/no/x" $one
succeeds "nothing to resume" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/anew" --ctx 64 --samples 2 --resume
says "nothing to resume: said" "no .*anew.resume to go on with"
for option in "--ctx 64" "--samples 2" "--seed 0" "--collect full" "--to imatrix"; do
	exits 2 "merge $option" "$QUIRE" calibrate --merge "$T/part1" "$T/part2" -o "$T/x" $option
	case $option in --to*) ;; *) exits 2 "from $option" "$QUIRE" calibrate "$DEMO" --from "$T/whole" -o "$T/x.gguf" $option ;; esac
done

# rank
succeeds "few tokens" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/few" --ctx 64 --samples 1 --collect full
says "few tokens: warning" "64 tokens cannot fill the second moments of [0-9]+ channels"

# plan
succeeds "dry run" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/plan" $few --dry-run --json
is "dry run writes nothing" "$(ls "$T" | grep -c plan)" 0
near "dry run knows the size" "$(json "$T/out" file_bytes)" "$(size "$T/whole")" .01

# another model: one matrix is enough
if [ -d "$SHARED/models/stories260K" ]; then
	exits 7 "statistics of another model" "$QUIRE" calibrate "$SHARED/models/stories260K" --from "$T/whole" -o "$T/x.gguf"
	says "statistics of another model: reason" "gathered with another model"
else
	skip "statistics of another model"
fi
mkdir "$T/edited" && cp "$DEMO"/* "$T/edited"
chmod -R u+w "$T/edited"
bytes=$(size "$T/edited/model.safetensors")
# the second half of the file, moved by one value
{ head -c $((bytes - 2000000)) "$DEMO/model.safetensors"; tail -c 1999998 "$DEMO/model.safetensors"; printf '\0\0'; } >"$T/edited/model.safetensors"
exits 7 "statistics of an edited model" "$QUIRE" calibrate "$T/edited" --from "$T/whole" -o "$T/x.gguf"
succeeds "a copy in another container" "$QUIRE" convert "$DEMO" -o "$T/copy.quire" -q
succeeds "is the same model" "$QUIRE" calibrate "$T/copy.quire" --from "$T/whole" -o "$T/copy.gguf"

LC_ALL=C sed 's/model\.layers\.2\.mlp\.up_proj/model.layers.2.mlp.up_proX/' "$DEMO/model.safetensors" >"$T/edited/model.safetensors"
exits 3 "a model that lacks a tensor" "$QUIRE" calibrate "$T/edited" --data "$T/text.txt" -o "$T/x" --samples 1
says "a model that lacks a tensor: reason" "missing tensors: model.layers.2.mlp.up_proj.weight"

# importance matrices
succeeds "importance matrix" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/whole.gguf" --ctx 64 --samples 96 -q
succeeds "importance matrix, older form" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" -o "$T/whole.dat" --ctx 64 --samples 96 -q
is "begins as GGUF" "$(head -c 4 "$T/whole.gguf")" GGUF
succeeds "the same from statistics" "$QUIRE" calibrate "$DEMO" --data "$T/text.txt" --from "$T/whole" -o "$T/from.gguf"
is "is the same file" "$(cmp "$T/whole.gguf" "$T/from.gguf" && echo same)" same
succeeds "from the older form" "$QUIRE" calibrate "$DEMO" --from "$T/whole.dat" -o "$T/back.gguf"
exits 7 "an importance matrix of another model" sh -c "tail -c +1 '$T/whole.dat' | sed 's/blk/BLK/g' >'$T/other.dat' && '$QUIRE' calibrate '$DEMO' --from '$T/other.dat' -o '$T/x.gguf'"
succeeds "merge of importance matrices" "$QUIRE" calibrate --merge "$T/whole.gguf" "$T/from.gguf" -o "$T/twice.gguf"
prints "merge of importance matrices: what it is" "importance matrix of [0-9]+ entries over 192 chunks"
# twice the same sums over twice the tokens is the same mean, which is all that quantize looks at
for m in whole twice; do succeeds "quantize by $m" "$QUIRE" quantize "$DEMO" -s pure-q4_0 -m imatrix --stats "$T/$m.gguf" -o "$T/$m.quire" -q; done
is "weighing the same twice changes nothing" "$(cmp "$T/whole.quire" "$T/twice.quire" && echo same)" same
succeeds "merge of the older form" "$QUIRE" calibrate --merge "$T/whole.dat" "$T/whole.dat" -o "$T/twice.dat"
exits 7 "tokens and chunks cannot be weighed" "$QUIRE" calibrate --merge "$T/whole.gguf" "$T/whole.dat" -o "$T/x.gguf"
says "tokens and chunks cannot be weighed: reason" "whole.dat: the older form counts chunks"
exits 7 "statistics and an importance matrix" "$QUIRE" calibrate --merge "$T/whole" "$T/whole.gguf" -o "$T/x.gguf"
says "statistics and an importance matrix: reason" "do not add up"
head -c 3000 "$T/whole.dat" >"$T/cut.dat"
exits 3 "truncated importance matrix" "$QUIRE" calibrate "$DEMO" --from "$T/cut.dat" -o "$T/x.gguf"
says "truncated importance matrix: reason" "cut.dat: entry '.*truncated"
head -c 100000 "$T/whole" >"$T/cut"
exits 3 "truncated statistics" "$QUIRE" calibrate "$DEMO" --from "$T/cut" -o "$T/x.gguf"
is "nothing is left of refused files" "$(ls -A "$T" | grep -c '^\.\?x')" 0
done_testing
