# quire compare: the table, CSV, JSON and the page, what is kept, the choice, and refusals.
. "$(dirname "$0")/lib.sh"
E=$ROOT/examples/demo.eval.txt W=$T/work
compare() { "$QUIRE" compare "$DEMO" --data "$E" --ctx 128 --chunks 12 --work "$W" "$@"; }

# refusals, before anything is made
exits 2 "no text" "$QUIRE" compare "$DEMO" --schemes Q8_0
says "it says what to give" 'compare needs a text: --data'
exits 2 "nothing to compare" compare
says "it says what to give" 'nothing to compare: give --schemes'
exits 2 "an unknown scheme" compare --schemes Q8_0,Q4_KM_
says "it names the scheme" "Q4_KM_"
exits 2 "an unknown method" compare --schemes Q8_0/magic
says "it names the method" "unknown method 'magic'"
exits 2 "a name twice" compare --schemes Q8_0,Q8_0
says "it names the variant" "two variants are called 'Q8_0'"
exits 2 "an unknown way to attribute" compare --schemes Q8_0 --attribute heads
says "it lists the ways" 'layers, tensors or roles'
exits 2 "a confidence above one" compare --schemes Q8_0 --confidence 95
exits 4 "a page in no folder" compare --schemes Q8_0 --html "$T/none/page.html"
says "it names the folder" 'there is no folder'
exits 4 "a variant that is not there" compare "$T/none.gguf"
printf 'a Q8_0\nb Q8_0 color=red\n' >"$T/plan"
exits 2 "an unknown option in a plan" compare --plan "$T/plan"
says "it names file and line" 'plan, line 2: unknown option'
printf 'method=rtn Q8_0\n' >"$T/plan"
exits 2 "a plan's line without a name" compare --plan "$T/plan"
printf 'just-a-name\n' >"$T/plan"
exits 2 "a variant without a scheme" compare --plan "$T/plan"
printf 'a Q8_0 kv-cache=q9\n' >"$T/plan"
exits 2 "an unknown codec of the cache" compare --plan "$T/plan"
printf 'x' >"$T/short.txt"
exits 3 "a text shorter than a window" "$QUIRE" compare "$DEMO" --data "$T/short.txt" --schemes Q8_0 --work "$W"
if [ -e "$W/Q8_0"* ] 2>/dev/null; then not_ok "a refused run made nothing"; else ok "a refused run made nothing"; fi

# the whole thing
succeeds "three schemes" compare --schemes Q8_0,Q4_0,Q4_0/rtn --csv "$T/a.csv" --html "$T/a.html"
prints "a row for the original" '^ +original +6\.[0-9] MiB'
prints "rows by size, the front marked" '^ 3\* Q8_0 '
is "one row per variant in the CSV" "$(wc -l <"$T/a.csv")" 4
is "as many fields in each" "$(awk -F, '{ print NF }' "$T/a.csv" | sort -u | tr '\n' ' ')" "23 "
f=$(echo "$W"/Q8_0-*.quire)
F=$(echo "$W"/Q4_0-*.quire | cut -d ' ' -f 1)
"$QUIRE" verify "$f" --against "$DEMO" --data "$E" --ctx 128 --chunks 12 --json >"$T/verify.json"
near "KL is what verify says" "$(awk -F, '$1 == "Q8_0" { print $12 }' "$T/a.csv")" "$(json "$T/verify.json" kl_mean)" 1e-7
near "and so is perplexity" "$(awk -F, '$1 == "Q8_0" { print $8 }' "$T/a.csv")" "$(json "$T/verify.json" perplexity)" 1e-7

# the page: well-formed, whole, nothing from elsewhere
if grep -qiE '<script|src=|href=|url\(|@import|https?:' "$T/a.html"; then not_ok "the page needs nothing from elsewhere"; else ok "the page needs nothing from elsewhere"; fi
is "three plots, for wide and narrow screens" "$(grep -o '<svg viewBox="0 0 [39][06]0' "$T/a.html" | wc -l)" 6
is "tags are closed" "$(grep -oE '<(svg|table|section|div|figure|text|td|tr|ul|li|p|small)[ >]' "$T/a.html" | wc -l)" \
	"$(grep -oE '</(svg|table|section|div|figure|text|td|tr|ul|li|p|small)>' "$T/a.html" | wc -l)"
if grep -qE '(nan|inf)[" <,]' "$T/a.html"; then not_ok "every coordinate is a number"; else ok "every coordinate is a number"; fi
prints_page() { if grep -qE -- "$2" "$T/a.html"; then ok "$1"; else not_ok "$1"; fi; }
prints_page "it is for light and dark, and for paper" 'prefers-color-scheme:dark.*|@media print'
if command -v python3 >/dev/null; then
	succeeds "the page is well-formed XML" python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$T/a.html"
else skip "the page is well-formed XML"; fi

# a second run makes and measures nothing again; more text measures, but makes nothing
ls -l --time-style=full-iso "$W" >"$T/before"
succeeds "the same once more" compare --schemes Q8_0,Q4_0,Q4_0/rtn --json
ls -l --time-style=full-iso "$W" >"$T/after"
if cmp -s "$T/before" "$T/after"; then ok "nothing is made again"; else not_ok "nothing is made again"; fi
is "JSON says so" "$(grep -cE '"(made|measured)": false' "$T/out")" 6
is "all pairs are there" "$(grep -c '"p_holm"' "$T/out")" 3
is "with its schema" "$(json "$T/out" schema)" "quire-compare/1"
if command -v python3 >/dev/null; then cp "$T/out" "$T/a.json" && succeeds "the JSON parses" python3 -m json.tool "$T/a.json"; else skip "the JSON parses"; fi
before=$(stat -c %Y.%y "$f")
succeeds "another window size" "$QUIRE" compare "$DEMO" --data "$E" --ctx 64 --chunks 6 --work "$W" --schemes Q8_0 --json
is "is measured" "$(json "$T/out" measured)" true
is "but not made again" "$(stat -c %Y.%y "$f")" "$before"
for p in "$W"/Q4_0-*.part; do printf 'x' | dd of="$p" bs=1 seek=900 conv=notrunc 2>/dev/null; done
succeeds "a damaged measurement" compare --schemes Q8_0,Q4_0 --json
is "is made again" "$(grep -c '"measured": true' "$T/out")" 1

# the choice
succeeds "a budget" compare --schemes Q8_0,Q4_0 --budget 3M
prints "takes the nearest that fits" '^take Q4_0: the nearest to the original of at most 3\.0 MiB'
succeeds "a limit of KL" compare --schemes Q8_0,Q4_0,Q4_0/rtn --max-kl 0.0005
prints "takes the smallest below it" '^take Q8_0: the smallest with a KL below 0.0005'
succeeds "the fastest" compare --schemes Q8_0,Q4_0,Q4_0/rtn --max-kl 1 --fastest --json
fastest=$(awk -F'"' '/"name":/ { n = $4 } /"tokens_per_second":/ { split($0, x, ": "); if (x[2] + 0 > m) { m = x[2] + 0; f = n } } END { print f }' "$T/out")
is "the fastest: the one with the most tokens per second" "$(json "$T/out" take)" "$fastest"
exits 1 "a budget that nothing fits" compare --schemes Q8_0,Q4_0 --budget 1M
says "it says how far off" 'the smallest, Q4_0, is [0-9.]+ KiB|MiB .* over the budget'
exits 1 "a limit that nothing meets" compare --schemes Q4_0 --max-kl 1e-6 --html "$T/none.html"
says "it says how far off" 'the nearest, Q4_0, has a KL of .* above the limit'
if grep -q 'class="take none"' "$T/none.html"; then ok "the page says so as well"; else not_ok "the page says so as well"; fi
exits 1 "limits that only meet apart" compare --schemes Q8_0,Q4_0 --budget 3M --max-kl 0.0001
says "it says so" 'each limit can be met alone'
succeeds "one window" "$QUIRE" compare "$DEMO" --data "$E" --ctx 64 --chunks 1 --work "$W" --schemes Q8_0,Q4_0 --html "$T/one.html"
prints "has no intervals, and says so" 'one window gives no intervals'

# a plan: tensors, a cache in few bits, a model that exists
cat >"$T/plan" <<-PLAN
	# comment
	small        Q4_0
	small+v      Q4_0  tensor=attn_v=q8_0
	small+cache  Q4_0  kv-cache=q4_0   # less memory
	other        file=$f
PLAN
succeeds "a plan" compare --plan "$T/plan" --json
is "its variants" "$(sed -n 's/^      "name": "\(.*\)",$/\1/p' "$T/out" | head -4 | sort | tr '\n' ' ')" "other small small+cache small+v "
is "a cache of 4.5 bits against 16" "$(sed -n 's/.*"kv_bytes_per_token": \([0-9]*\).*/\1/p' "$T/out" | sort -nu | tr '\n' ' ')" "1440 5120 "
is "a file serves both that differ in the cache" "$(ls "$W"/Q4_0-*.quire | wc -l)" 3

# a recipe from a file: a change of the file makes another checkpoint
printf 'attn_v = q8_0  # values\n' >"$T/recipe"
printf 'r Q4_0 recipe=%s\nt Q4_0 tensor=attn_v=q8_0\n' "$T/recipe" >"$T/plan"
succeeds "a recipe" compare --plan "$T/plan" --json
is "is the same as its rules by themselves" "$(grep -oE '"(file_bytes|kl_median)": .*' "$T/out" | sort | uniq -c | awk '$1 == 2' | wc -l)" 2
printf 'attn_v = q4_k\n' >"$T/recipe"
succeeds "another recipe in the same file" compare --plan "$T/plan" --json
is "is made anew" "$(grep -o '"made": [a-z]*' "$T/out" | sort | uniq -c | tr -s ' \n' ' ')" ' 1 "made": false 1 "made": true '
printf 'r recipe=%s\n' "$T/recipe" >"$T/plan"
succeeds "a recipe alone" compare --plan "$T/plan"

# folded variants
C=$ROOT/examples/demo.calib.txt
cat >"$T/plan" <<-PLAN
	two     --kv-heads 2 --fold-method mean --fold-samples 8 Q8_0
	again   kv-heads=2 fold-method=mean fold-samples=8 Q4_0 --kv-cache q8_0
	floats  --kv-heads 2 --fold-method mean --fold-samples 8
	shared  --share-layers suffix:2 --share-method reuse --fold-samples 8
	window  --window=32 --full-every 5 --fold-samples 8
PLAN
exits 2 "fold options without a text" compare --plan "$T/plan"
says "it says which to give" "variant 'two': fold options need a text .* --calib TEXT"
exits 2 "fitted to what it is judged on" compare --plan "$T/plan" --calib "$E"
says "it says why not" 'the same text'
exits 4 "a text that is not there" compare --plan "$T/plan" --calib "$T/none.txt"
exits 2 "one standard input for both texts" compare --plan "$T/plan" --calib - --data -
printf 'a --kv-heads\n' >"$T/bad"
exits 2 "an option without its value" compare --plan "$T/bad" --calib "$C"
says "it says which" 'bad, line 1: --kv-heads needs a value'
printf 'a kv-heads=3 Q8_0\n' >"$T/bad"
exits 2 "a head count that does not divide" compare --plan "$T/bad" --calib "$C"
says "it names the variant" "variant 'a': .*3"
printf 'a window=many Q8_0\n' >"$T/bad"
exits 2 "a window that is no number" compare --plan "$T/bad" --calib "$C"
says "it names the option" "variant 'a': --window"
printf 'a from=%s Q8_0 method=gptq\n' "$f" >"$T/bad"
exits 2 "a method that needs statistics of another checkpoint" compare --plan "$T/bad"
says "it says what they can be gathered on" 'statistics of the changed model.* --calib TEXT'
succeeds "folded variants" compare --plan "$T/plan" --calib "$C" --json
cp "$T/out" "$T/fold.json"
kv() { awk -v name="\"$1\"," '$1 == "\"name\":" { on = $2 == name } on && $1 == "\"kv_bytes_per_token\":" { print $2 + 0; exit }' "$T/fold.json"; }
is "two of eight heads, a quarter of the cache" "$(kv two) $(kv floats)" "1280 1280"
is "and in 8 bits" "$(kv again)" 680
is "three of five layers keep a cache" "$(kv shared)" 3072
is "four of five layers keep 32 of 256 tokens" "$(kv window)" 1536
is "one fold serves all that ask for it" "$(ls "$W"/folded-*.quire | wc -l)" 3
ls -l --time-style=full-iso "$W" >"$T/before"
succeeds "the same once more" compare --plan "$T/plan" --calib "$C" --attribute layers
ls -l --time-style=full-iso "$W" | grep -v by-layers >"$T/after"
is "nothing is folded again" "$(diff "$T/before" "$T/after" | grep -c quire)" 0
says "other shapes cannot be attributed" "variant 'two' is not attributed"

# attribution
succeeds "which layers cause it" compare --schemes Q4_0 --attribute layers
prints "the layers of the demo model" '^  layer [0-4] +[0-9.e-]+ \+/- '
touch -d yesterday "$W"/*-by-layers.json
succeeds "asked again" compare --schemes Q4_0 --attribute layers
prints "it is not measured again" '^  layer [0-4] +[0-9.e-]+ \+/- '
is "but read from the work folder" "$(find "$W" -name '*-by-layers.json' -newer "$T/plan" | wc -l)" 0
succeeds "which tensors, in JSON" compare --schemes Q4_0 --attribute tensors --chunks 2 --json
is "all of them" "$(grep -c '"kl_without"' "$T/out")" 36
succeeds "verify attributes as well" "$QUIRE" verify "$F" --against "$DEMO" --data "$E" --ctx 128 --chunks 4 --attribute roles --json
is "by role" "$(grep -cE '"name": "(embed|attn_q|attn_k|attn_v|attn_o|ffn_gate|ffn_up|ffn_down)"' "$T/out")" 8
exits 2 "attribution without a reference" "$QUIRE" verify "$F" --data "$E" --attribute roles
says "it says what is missing" 'against REF'
# one layer damaged: it is the one that is found
succeeds "a model with one bad layer" "$QUIRE" quantize "$DEMO" -o "$T/bad.quire" --tensor 'model.layers.2.*_proj.weight=q2_k' -q
succeeds "is attributed" "$QUIRE" verify "$T/bad.quire" --against "$DEMO" --data "$E" --ctx 128 --chunks 4 --attribute layers
is "to that layer alone" "$(grep -A1 '^KL that goes' "$T/out" | tail -1 | awk '{ print $1, $2, $(NF - 1), NF }')" "layer 2 100.0 7"
is "and to no other" "$(grep -c '^  layer' "$T/out")" 1
# documents on standard output are that and nothing else
"$QUIRE" compare "$DEMO" --data "$E" --ctx 128 --chunks 12 --work "$W" --schemes Q8_0,Q4_0 --csv "$T/two.csv" --html "$T/two.html" >/dev/null 2>&1
for x in csv html; do
	succeeds "--$x -" compare --schemes Q8_0,Q4_0 --$x -
	is "--$x -: as in a file" "$(sed 's/, [0-9.]* s//' "$T/out" | cksum)" "$(sed 's/, [0-9.]* s//' "$T/two.$x" | cksum)"
	exits 2 "--$x - and --json" compare --schemes Q8_0 --$x - --json
	says "--$x - and --json: said" "json and --$x both go to standard output; name a file"
done
exits 2 "two documents" compare --schemes Q8_0 --csv - --html -
exits 1 "a limit that nothing meets, as CSV" compare --schemes Q4_0 --max-kl 1e-6 --csv -
says "a limit that nothing meets, as CSV: said" 'no variant with a KL below'

# interrupted: says that there is something to go on with only when there is
for first in "" "$(basename "$F")"; do
	rm -rf "$T/stop" && mkdir "$T/stop"
	[ -z "$first" ] || cp "$F" "$T/stop/"
	"$QUIRE" compare "$DEMO" --data "$E" --ctx 128 --work "$T/stop" --schemes Q4_0,q3_k 2>"$T/err" >"$T/out" &
	pid=$!
	while [ "$(ls -A "$T/stop" | grep -c tmp)" -eq 0 ] && kill -0 $pid 2>/dev/null; do :; done
	kill -STOP $pid; kill -TERM $pid; kill -CONT $pid
	wait $pid
	is "interrupted${first:+ later}" $? 143
	if [ "$first" ]; then
		says "interrupted later: how to go on" 'quire: interrupted; .*/stop has what was done; the same command goes on with it$'
	else
		# between two pieces of work nothing need be said; where the machine is slow the first file may be finished
		[ -n "$(ls "$T/stop")" ] || is "interrupted: nothing to go on with" "$(grep 'interrupted' "$T/err" | grep -vc 'nothing was kept$')" 0
	fi
	is "interrupted${first:+ later}: nothing half-written" "$(ls -A "$T/stop" | grep -c tmp)" 0
done
is "no half-written files" "$(find "$W" -name '*tmp*' -o -name '.*' -type f | wc -l)" 0
done_testing
