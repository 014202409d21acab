# What verify and compare refuse, each with its exit code and its reason. Files damaged on purpose: tests/unit/test_records.c.
. "$(dirname "$0")/lib.sh"
text=$ROOT/examples/demo.eval.txt
few="--ctx 64 --chunks 10"
verify() { "$QUIRE" verify "$DEMO" --data "$text" $few -q "$@"; }
# refuses CODE PATTERN COMMAND...: one line on stderr, nothing on stdout
refuses() {
	exits "$1" "$2" "${@:3}"
	says "$2: the reason" "^quire [a-z]+: .*$2"
	is "$2: nothing else" "$(wc -c <"$T/out") $(wc -l <"$T/err")" "0 1"
}
"$QUIRE" verify "$DEMO" --data "$text" $few --save-baseline "$T/base" -q >/dev/null

# verify: the command line
refuses 2 'verify needs a text: --data FILE' "$QUIRE" verify "$DEMO"
refuses 2 'verify takes one model; reference models go to --against' "$QUIRE" verify "$DEMO" "$DEMO" --data "$text"
refuses 2 'unknown protocol .x.; use llama or full' verify --protocol x
refuses 2 '\-\-ctx and --windows must not be negative' verify --ctx -1
refuses 2 '\-\-ctx and --windows must not be negative' verify --chunks -1
# a window in which no token is scored, for every command that cuts a text into windows
short='windows of 2 tokens leave none to score; --ctx must be at least 3'
refuses 2 'windows of 1 tokens leave none to score' verify --ctx 1
refuses 2 "$short" verify --ctx 2
refuses 2 "$short" verify --ctx 2 --against "$DEMO"
refuses 2 "$short" verify --ctx 2 --shard 1/2 -o "$T/x"
refuses 2 "$short" verify --ctx 2 --save-baseline "$T/x"
refuses 2 'windows of 1 tokens leave none to score; --ctx must be at least 2' verify --ctx 1 --protocol full
refuses 2 "$short" "$QUIRE" compare "$DEMO" --data "$text" --schemes q4_k --ctx 2 --work "$T/w" -q
refuses 2 "$short" "$QUIRE" calibrate "$DEMO" --data "$text" --ctx 2 -o "$T/x" -q
refuses 2 "$short" "$QUIRE" quantize "$DEMO" --data "$text" --ctx 2 --scheme q4_k -o "$T/x.gguf" -q
refuses 2 "$short" "$QUIRE" fold "$DEMO" --data "$text" --ctx 2 --kv-heads 4 -o "$T/x.quire" -q
succeeds 'two tokens are enough when all of them count' verify --ctx 2 --protocol full --against "$DEMO"
succeeds 'and three for llama' verify --ctx 3 --against "$DEMO"
refuses 2 'are both references; give one' verify --against "$DEMO" --baseline "$T/base"
refuses 2 '\-\-shard .0/2.: write I/N' verify --shard 0/2 -o "$T/x"
refuses 2 '\-\-shard .3/2.: write I/N' verify --shard 3/2 -o "$T/x"
refuses 2 '\-\-shard .1/2x.: write I/N' verify --shard 1/2x -o "$T/x"
refuses 2 '\-\-shard needs a file for the part' verify --shard 1/2
refuses 2 '\-o goes with --shard' verify -o "$T/x"
refuses 2 'a part \(--shard\) keeps figures only' verify --shard 1/2 -o "$T/x" --junit "$T/y"
refuses 2 'a part \(--shard\) keeps figures only' verify --shard 1/2 -o "$T/x" --noise
refuses 2 '\-\-max-ppl judges a whole run; give it to verify --merge' verify --shard 1/2 -o "$T/x" --max-ppl 9
refuses 2 '\-\-unchanged|--max-kl needs a reference' verify --unchanged
for gate in max-kl max-kl-p99 max-ppl-ratio min-top1; do
	refuses 2 "--$gate needs a reference; add --against REF or --baseline FILE" verify --$gate 0.5
done
refuses 2 '\-\-max-ppl needs a number' verify --max-ppl nan
refuses 2 '\-\-max-ppl needs a number' verify --max-ppl 3,5
refuses 2 '\-\-max-kl -1: give a limit that is not negative' verify --baseline "$T/base" --max-kl -1
refuses 2 '\-\-min-top1 95: give a share from 0 to 1' verify --baseline "$T/base" --min-top1 95
refuses 2 '\-\-confidence must be at least 0.5 and below 1' verify --confidence 1
refuses 2 '\-\-undecided .maybe.: use pass or fail' verify --undecided maybe
refuses 2 '\-\-kl-by-position needs a reference' verify --kl-by-position
refuses 2 '\-\-attribute puts weights of the reference back' verify --attribute layers
refuses 2 'cannot attribute by .heads.' verify --against "$DEMO" --attribute heads
refuses 2 '\-\-draft-length needs the target model' verify --draft-length 2
for lengths in 0..3 3..2 1..99 2..x 1..2..3; do
	refuses 2 "--draft-length .$lengths.: write N or A..B" verify --against "$DEMO" --draft-length $lengths
done
refuses 2 '\-\-draft-length 40|write N or A\.\.B' verify --ctx 8 --against "$DEMO" --draft-length 40
refuses 2 '\-\-draft-cost must not be negative' verify --against "$DEMO" --draft-length 2 --draft-cost -1
refuses 2 'unknown codec|q9' verify --kv-cache q9

# verify: files
refuses 4 'none' "$QUIRE" verify "$T/none" --data "$text"
refuses 4 'none' "$QUIRE" verify "$DEMO" --data "$T/none"
refuses 4 'none' verify --baseline "$T/none"
refuses 4 'none' verify --against "$T/none"
: >"$T/empty"
refuses 3 'empty: the text is empty' "$QUIRE" verify "$DEMO" --data "$T/empty"
printf 'x' >"$T/tiny"
refuses 3 'the text has [0-9]+ tokens, fewer than one window of 256' "$QUIRE" verify "$DEMO" --data "$T/tiny"
printf '{"text": "a"}\n{"text": 3}\n' >"$T/lines.jsonl"
refuses 3 'lines.jsonl: line 2: there is no string "text"' "$QUIRE" verify "$DEMO" --data "$T/lines.jsonl"
mkdir "$T/rows" && cp "$DEMO"/* "$T/rows/"
sed -i 's/"vocab_size": *[0-9]*/"vocab_size": 1000/' "$T/rows/config.json"
refuses 3 'model.embed_tokens.weight' "$QUIRE" verify "$T/rows" --data "$text"
exits 4 "a step summary that cannot be written" env GITHUB_STEP_SUMMARY="$T/no/where" "$QUIRE" verify "$DEMO" --data "$text" $few --github
says "a step summary that cannot be written: the reason" "cannot write '.*no/where'"
succeeds "--junit without gates" verify --junit "$T/j.xml"
says "--junit without gates: a warning" 'no gate was given: only logits that are not finite can fail'

# a baseline of a version whose tokenizer hashes meant less; of another tokenizer it would say that
older=$ROOT/tests/golden/records/older.base
refuses 7 'older.base: it is of an older version, which told fewer tokenizers apart; make it again' verify --baseline "$older"
if [ -d "$SHARED/models/english" ]; then
	refuses 7 'older.base: it was made with another tokenizer$' "$QUIRE" verify "$SHARED/models/english" --data "$text" $few -q --baseline "$older"
else skip "a baseline of an older version, of another tokenizer"; fi

# attribution between unlike models is refused before anything runs
"$QUIRE" fold "$DEMO" -o "$T/folded" --kv-heads 4 --layers 1 --method mean --group neighbour -q >/dev/null 2>&1
refuses 7 'attn_k of layer 1 is not of the same shape in both models' verify --against "$T/folded" --attribute roles
refuses 7 'attn_k of layer 1 is not of the same shape in both models' "$QUIRE" verify "$T/folded" --against "$DEMO" --data "$text" $few -q --attribute layers

# verify: merging
for i in 1 2; do verify --shard $i/2 -o "$T/part$i"; verify --against "$DEMO" --shard $i/2 -o "$T/with$i"; done
verify --kv-cache q8_0 --shard 1/2 -o "$T/cache"
"$QUIRE" verify "$DEMO" --data "$text" --ctx 64 --chunks 200 --shard 1/7 -o "$T/small" -q
merge() { "$QUIRE" verify --merge "$@"; }
succeeds "two parts" merge "$T/part1" "$T/part2"
refuses 2 '\-\-merge reads parts; text, reference, windows and probes were chosen' merge "$T/part1" --data "$text"
refuses 2 '\-\-merge reads parts' merge "$T/part1" --noise
refuses 2 'needs a reference; add --against' merge "$T/part1" "$T/part2" --max-kl 1
refuses 2 '\-\-kl-by-position needs parts that were made with a reference' merge "$T/part1" "$T/part2" --kl-by-position
refuses 2 'the parts hold no acceptances; make them with --draft-length' merge "$T/with1" "$T/with2" --draft-length 2 --draft-cost 1
refuses 3 'in another part as well' merge "$T/part2" "$T/part2" "$T/part1"
refuses 3 'window [0-9]+ of 200 is in none of the parts' merge "$T/small"
refuses 3 'not a part of a run' merge "$T/base"
refuses 4 'none' merge "$T/part1" "$T/none"
refuses 7 'hold different figures|different models' merge "$T/part1" "$T/with2"
refuses 7 'made with different --kv-cache options' merge "$T/cache" "$T/part2"
refuses 7 'its number of windows is' merge "$T/part1" "$T/small"
verify --against "$DEMO" --draft-length 2 --shard 1/1 -o "$T/drafts"
refuses 2 'with --merge no model is there to be timed; give --draft-cost' merge "$T/drafts" --draft-length 2
succeeds "drafts, merged" merge "$T/drafts" --draft-length 2 --draft-cost 0.5

# logits that are not finite, in the model, the reference, a part, and beside a baseline
plant nan model.norm.weight '\300\177'
plant inf model.norm.weight '\200\177'
for what in nan inf; do
	for with in "" "--baseline $T/base" "--against $DEMO" "--shard 1/1 -o $T/bad" "--save-baseline $T/bad"; do
		exits 3 "$what ${with%% *}" "$QUIRE" verify "$T/$what" --data "$text" $few -q $with
		says "$what ${with%% *}: the reason" 'window [0-9]+: logits at scored position [0-9]+ are NaN or infinite'
	done
	exits 1 "$what, beside a gate" "$QUIRE" verify "$T/$what" --data "$text" $few -q --max-ppl 100
	says "$what, beside a gate: the reason" 'NaN or infinite'
	exits 1 "$what in the reference" verify --against "$T/$what" --max-kl 1
	says "$what in the reference: the reason" 'NaN or infinite'
	is "$what: no file" "$(ls "$T" | grep -cx bad)" 0
	exits 1 "$what: --undecided pass does not help" "$QUIRE" verify "$T/$what" --data "$text" $few --undecided pass --json --github --junit "$T/bad.xml"
	is "$what: JSON" "$(json "$T/out" verdict)" fail
	says "$what: an annotation" '^::error title=quire verify finite logits::'
	is "$what: JUnit" "$(grep -c '<testsuite name="quire verify" tests="1" failures="1"' "$T/bad.xml")" 1
	rm -f "$T/bad.xml"
done
exits 3 "compare: NaN in a variant" "$QUIRE" compare "$DEMO" "$T/nan" --data "$text" $few --work "$T/w" -q
says "compare: NaN in a variant: the reason" 'NaN or infinite'
exits 1 "compare: NaN beside a limit" "$QUIRE" compare "$DEMO" "$T/nan" --data "$text" $few --work "$T/w" --max-kl 1 -q
says "compare: NaN beside a limit: the reason" 'NaN or infinite'

# compare
compare() { "$QUIRE" compare "$DEMO" --data "$text" $few --work "$T/work" -q "$@"; }
refuses 2 '\-\-ctx and --windows must not be negative' compare --schemes Q8_0 --ctx -2
refuses 2 '\-\-max-kl must not be negative' compare --schemes Q8_0 --max-kl -2
refuses 2 '\-\-to takes quire or gguf, not .onnx.' compare --schemes Q8_0 --to onnx
refuses 2 'unknown codec .q9. for --kv-type' compare --schemes Q8_0 --kv-type q9
refuses 2 'unknown protocol .x.; use llama or full' compare --schemes Q8_0 --protocol x
refuses 2 '\-\-confidence needs a number from 0.5 to below 1' compare --schemes Q8_0 --confidence 1
refuses 2 'is a folder; give a file' compare --schemes Q8_0 --html "$T"
refuses 2 'method gptq needs statistics of the model: --stats FILE' compare --schemes Q4_0/gptq
refuses 4 'there is no folder' compare --schemes Q8_0 --csv "$T/no/a.csv"
refuses 4 'none. does not exist' compare "$T/none"
refuses 4 'none' compare --schemes Q8_0 --stats "$T/none"
refuses 4 'none' compare --plan "$T/none"
refuses 4 'cannot make the work folder' "$QUIRE" compare "$DEMO" --data "$text" $few --work "$T/no/work" --schemes Q8_0 -q
refuses 3 'fewer than one window' "$QUIRE" compare "$DEMO" --data "$T/tiny" --schemes Q8_0 --work "$T/work" -q
plan() { # CODE PATTERN LINE
	printf "$3\n" >"$T/plan"
	refuses "$1" "$2" compare --plan "$T/plan"
}
plan 2 'plan, line 1: a line begins with the variant.s name' 'method=rtn Q8_0'
plan 2 "plan, line 2: 'Q4_0' is not NAME=VALUE" '# x\na Q8_0 Q4_0'
plan 2 "plan, line 1: kv-rotate takes yes, not 'no'" 'a Q8_0 kv-rotate=no'
plan 2 "plan, line 1: variant 'a' has no scheme, no recipe, no fold options and no file" 'a'
plan 2 "plan, line 1: variant 'a' is a file; it takes no scheme" 'a Q8_0 file=x'
plan 2 "plan, line 1: unknown option 'colour'; a variant takes" 'a Q8_0 colour=red'
plan 2 "plan, line 2: a NUL byte; a plan is text" 'a Q8_0\nb Q4\000_0'
plan 2 'nothing to compare' '# nothing'
plan 4 'none. does not exist' "a Q8_0 from=$T/none"
plan 4 'none' "a Q8_0 recipe=$T/none"
printf 'attn_v = q8_0\nattn_q = q9\n' >"$T/recipe"
plan 3 "variant 'a': .*recipe: line 2: .*q9" "a Q4_0 recipe=$T/recipe"
plan 2 "two variants are called 'a'" 'a Q8_0\na Q4_0'
if [ -d "$SHARED/models/english" ]; then
	refuses 7 'cut the text into different tokens; their tokenizers differ' compare "$SHARED/models/english"
	refuses 7 'cut the text into different tokens \(first at token' verify --against "$SHARED/models/english"
	mkdir "$T/foreign" && cp "$DEMO"/*.json "$DEMO/model.safetensors" "$T/foreign/" && cp -f "$SHARED/models/english/tokenizer.json" "$T/foreign/"
	refuses 3 'the tokenizer has 4096 tokens, config.json a vocabulary of 1024' "$QUIRE" verify "$T/foreign" --data "$text" $few -q
else skip "another tokenizer"; fi
# one more row of the embedding: the same tokenizer, another vocabulary; and a layer less
if command -v python3 >/dev/null; then
	mkdir "$T/padded" "$T/short" && cp "$DEMO"/*.json "$T/padded/" && cp "$DEMO"/*.json "$T/short/" && chmod u+w "$T"/padded/* "$T"/short/*
	sed -i 's/"vocab_size": *1024/"vocab_size": 1025/' "$T/padded/config.json"
	sed -i 's/"num_hidden_layers": *5/"num_hidden_layers": 4/' "$T/short/config.json"
	for what in padded short; do
		python3 -c '
import json, struct, sys
raw = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
head, body, out, data = json.loads(raw[8:8 + n]), raw[8 + n:], {}, b""
for name, t in head.items():
    if name == "__metadata__" or sys.argv[3] == "short" and ".layers.4." in name:
        continue
    a, b = t["data_offsets"]
    piece = body[a:b]
    if name == "model.embed_tokens.weight" and sys.argv[3] == "padded":
        piece += piece[-512:]
        t["shape"][0] += 1
    t["data_offsets"] = [len(data), len(data) + len(piece)]
    out[name] = t
    data += piece
text = json.dumps(out).encode()
open(sys.argv[2], "wb").write(struct.pack("<Q", len(text)) + text + data)' "$DEMO/model.safetensors" "$T/$what/model.safetensors" $what
	done
	refuses 7 'the models have 4 and 5 layers; attribution needs the same' "$QUIRE" verify "$T/short" --against "$DEMO" --data "$text" $few -q --attribute layers
	refuses 7 'the models have vocabularies of 1025 and 1024 tokens' "$QUIRE" verify "$T/padded" --against "$DEMO" --data "$text" $few -q
	refuses 7 'not comparable with .*: its vocabulary is 1024, this run.s 1025' "$QUIRE" verify "$T/padded" --baseline "$T/base" --data "$text" -q
	refuses 7 'vocabular' compare "$T/padded"
else skip "another vocabulary"; fi
is "nothing was made" "$(ls "$T/work" 2>/dev/null | wc -l)" 0

# a checkpoint that cannot be read is told before anything is made
mkdir "$T/broken" && cp "$DEMO"/* "$T/broken/" && chmod u+w "$T/broken/model.safetensors" && head -c 100000 "$DEMO/model.safetensors" >"$T/broken/model.safetensors"
printf 'a Q8_0\nb Q4_0 from=%s\n' "$T/broken" >"$T/plan"
exits 3 "a broken checkpoint among the variants" compare --plan "$T/plan"
says "a broken checkpoint among the variants: the reason" 'broken'
is "nothing was made for it" "$(ls "$T/work" 2>/dev/null | wc -l)" 0

# a run that ends early, on a full disk say: what was made before is kept, and not made again
full() { (
	trap '' XFSZ
	ulimit -f 3000
	compare "$@"
); }
exits 4 "no room for the second variant" full --schemes Q4_0,Q8_0
says "no room for the second variant: the reason" "variant 'Q8_0'|Q8_0.*: "
is "the first is there, and nothing else" "$(ls -A "$T/work" | sed 's/-[0-9a-f]*\././' | tr '\n' ' ')" "Q4_0.json Q4_0.quire "
exits 0 "the same with room" compare --schemes Q4_0,Q8_0 --json
is "the first is not made again" "$(grep -o '"made": [a-z]*' "$T/out" | sort | uniq -c | tr -s ' \n' ' ')" ' 1 "made": false 1 "made": true '
done_testing
