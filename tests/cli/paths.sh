# Outputs that are inputs, two outputs that are one file, and files that are something else: refused by every command that writes.
. "$(dirname "$0")/lib.sh"
export OMP_WAIT_POLICY=passive
few="--ctx 64 --chunks 2"
fresh() {
	rm -rf "$T/w" && mkdir -p "$T/w/m" && cp "$DEMO"/* "$T/w/m/" && cp "$T/text" "$T/stats" "$T/q.gguf" "$T/w/" && chmod -R u+w "$T/w"
	printf 'attn_v = q8_0\n' >"$T/w/rules"
	ln -s m/model.safetensors "$T/w/soft" && ln "$T/w/m/model.safetensors" "$T/w/hard"
}
head -c 60000 "$ROOT/examples/demo.eval.txt" >"$T/text"
"$QUIRE" quantize "$DEMO" -s q8_0 -o "$T/q.gguf" -q
"$QUIRE" calibrate "$DEMO" --data "$T/text" -o "$T/stats" --ctx 64 --samples 2 -q >/dev/null
# keeps FILE COMMAND...: refused with the reason, and every byte stays
keeps() {
	local file=$T/w/$1 sum
	sum=$(cat "$file" | sha256sum)
	shift
	(cd "$T/w" && exits 2 "$*" "$QUIRE" "$@" && exit $((bad > 0)))
	local rc=$?
	n=$((n + 1)); [ $rc -eq 0 ] || bad=$((bad + 1))
	says "$*: the reason" 'is an input as well; give (--[a-z-]+|GITHUB_STEP_SUMMARY) another name'
	is "$*: kept" "$(cat "$file" | sha256sum)" "$sum"
}
fresh
v="verify m --data text $few -f"
for target in m/model.safetensors m/config.json m/tokenizer.json soft hard; do keeps $target $v --save-baseline $target; done
keeps text $v --save-baseline text
keeps q.gguf verify q.gguf --data text --shard 1/1 -o q.gguf -f
keeps q.gguf $v --against q.gguf --max-kl 9 --junit q.gguf
keeps text $v --junit text
for target in text m/config.json soft; do GITHUB_STEP_SUMMARY=$target keeps $target $v --github --max-ppl 1000; done
c="compare m --data text $few -s q8_0 -f"
keeps m/model.safetensors $c --work wk --html m/model.safetensors
keeps text $c --work wk --csv text
keeps stats $c --stats stats --work wk --csv stats
keeps m/config.json $c --work m
printf 'a Q8_0 recipe=rules\nb file=q.gguf\n' >"$T/w/plan"
keeps plan compare m --data text --plan plan --csv plan -f
keeps rules compare m --data text --plan plan --csv rules --work wk -f
keeps q.gguf compare m --data text --plan plan --html q.gguf --work wk -f
keeps stats calibrate m --from stats -o stats -f
keeps m/tokenizer.json calibrate m --data text -o m/tokenizer.json -f
keeps stats calibrate --merge stats -o stats -f
keeps m/model.safetensors fold m --kv-heads 4 --data text -o m/model.safetensors -f --to safetensors
keeps text fold m --kv-heads 4 --data text -o text -f --to gguf
keeps m/config.json convert m/model.safetensors -o m/config.json --to gguf -f
keeps text quantize m -s q4_0 --data text -o x.gguf --report text -f
keeps rules quantize m -s q4_0 --recipe rules -o rules --to gguf -f
keeps q.gguf quantize q.gguf -s q4_0 -o q.gguf -f --requantize
mv "$T/w/m/model.safetensors" "$T/w/m/weights-a" 2>/dev/null
printf '{"weight_map":{"a":"weights-a"}}' >"$T/w/m/model.safetensors.index.json"
keeps m/weights-a convert m -o m/weights-a --to gguf -f
keeps m/model.safetensors.index.json convert m -o m/model.safetensors.index.json --to gguf -f
printf x | tee "$T/w/s-00001-of-00002.gguf" >"$T/w/s-00002-of-00002.gguf"
keeps s-00002-of-00002.gguf convert s-00001-of-00002.gguf -o s-00002-of-00002.gguf -f
# the working file of calibrate as well
cp "$T/text" "$T/w/y.resume"
keeps y.resume calibrate m --data y.resume -o y -f

# two outputs
fresh
exits 2 "one file for two outputs" "$QUIRE" compare "$DEMO" --data "$T/text" -s q8_0 --work "$T/w/wk" --html "$T/w/o" --csv "$T/w/./o"
says "one file for two outputs: the reason" "--csv and --html name the same file|--html and --csv name the same file"
exits 2 "one name for output and report" "$QUIRE" quantize "$DEMO" -s q8_0 -o "$T/w/a.json" --to gguf --report "$T/w/a.json"

# a file that is something else is not written over; an earlier output of the same kind is
other() { # OPTION KIND COMMAND...
	echo mine >"$T/w/o"
	exits 2 "$1 over another file" "${@:3}" "$1" "$T/w/o"
	says "$1 over another file: the reason" "w/o' exists and holds no $2; --force overwrites it"
	is "$1 over another file: kept" "$(cat "$T/w/o")" mine
	succeeds "$1, asked for" "${@:3}" "$1" "$T/w/o" -f
	succeeds "$1 over an earlier one" "${@:3}" "$1" "$T/w/o"
	: >"$T/w/o"
	succeeds "$1 over an empty file" "${@:3}" "$1" "$T/w/o"
}
v="$QUIRE verify $DEMO --data $T/text $few -q"
other --save-baseline baseline $v
other --junit "JUnit report of verify" $v --max-ppl 1000
other -o "part of a run" $v --shard 1/2
other --csv "table of compare" "$QUIRE" compare "$DEMO" "$T/q.gguf" --data "$T/text" $few --work "$T/w/wk" -q
other --html "page of compare" "$QUIRE" compare "$DEMO" "$T/q.gguf" --data "$T/text" $few --work "$T/w/wk" -q
mv "$T/w/o" "$T/w/page"
exits 2 "a page is no table" "$QUIRE" compare "$DEMO" "$T/q.gguf" --data "$T/text" $few --work "$T/w/wk" -q --csv "$T/w/page"
for kind in json html; do
	echo mine >"$T/w/r.$kind"
	exits 2 "a report over another file, $kind" "$QUIRE" quantize "$DEMO" -s q8_0 -o "$T/w/x.gguf" --report "$T/w/r.$kind" -q
	rm "$T/w/r.$kind"
	succeeds "a report, $kind" "$QUIRE" quantize "$DEMO" -s q8_0 -o "$T/w/x-$kind.gguf" --report "$T/w/r.$kind" -q
	succeeds "a report over an earlier one, $kind" "$QUIRE" quantize "$DEMO" -s q8_0 -o "$T/w/y-$kind.gguf" --report "$T/w/r.$kind" -q
done
done_testing
