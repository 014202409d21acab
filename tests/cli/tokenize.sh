# tokenize: ids, pieces, counts and back again.
. "$(dirname "$0")/lib.sh"

succeeds "a text" "$QUIRE" tokenize "$DEMO" "Once upon a time"
is "ids with BOS" "$(cat "$T/out")" "1 313 691 404 993 337 261 260 980 711"
succeeds "two texts" "$QUIRE" tokenize "$DEMO" "Hi there" "a" --no-special
is "one line per text" "$(tr '\n' ';' <"$T/out")" "363 980 396;261;"
succeeds "--pieces" "$QUIRE" tokenize "$DEMO" "a" --pieces
is "id, tab, piece" "$(cat "$T/out")" "$(printf '1\t<s>\n261\t\xe2\x96\x81a')"
succeeds "--count" "$QUIRE" tokenize "$DEMO" --file "$ROOT/examples/demo.eval.txt" --count
is "as many tokens as the reference counts" "$(cat "$T/out")" 88045
succeeds "--json" "$QUIRE" tokenize "$DEMO" a b --json --pieces
is "--json: text" "$(cat "$T/out")" '{"schema":"quire-tokenize/1","texts":[{"count":2,"ids":[1,261],"pieces":["<s>","▁a"]},{"count":2,"ids":[1,266],"pieces":["<s>","▁b"]}]}'

printf 'a\nb\n' >"$T/two"
is "standard input is one text" "$("$QUIRE" tokenize "$DEMO" <"$T/two" | wc -l)" 1
is "--lines" "$("$QUIRE" tokenize "$DEMO" --lines --no-special <"$T/two" | tr '\n' ';')" "261;266;"
is "--file - is standard input" "$("$QUIRE" tokenize "$DEMO" --file - -l --no-special <"$T/two" | tr '\n' ';')" "261;266;"

# there and back
for text in "There was once a child called Emma." "naïve café, 日本語 🎉" "a  b	c" 'quotes "and" \slashes'; do
	is "there and back: $text" "$("$QUIRE" tokenize "$DEMO" "$text" | "$QUIRE" tokenize "$DEMO" --decode --no-special)" "$text"
done
head -c 20000 "$ROOT/examples/demo.eval.txt" >"$T/piece"
is "a long text there and back" "$("$QUIRE" tokenize "$DEMO" --file "$T/piece" | "$QUIRE" tokenize "$DEMO" -d --no-special | head -c 20000 | cmp - "$T/piece" && echo same)" same
is "--decode of arguments" "$("$QUIRE" tokenize "$DEMO" --decode --no-special 1 313 691 404)" "Once u"
is "--decode of a JSON list" "$("$QUIRE" tokenize "$DEMO" --decode --no-special '[1, 313,691]')" "Once"
printf '\377\376 bad \300' | "$QUIRE" tokenize "$DEMO" >"$T/out" 2>"$T/err"
is "bytes that are no UTF-8 are read" $? 0

exits 2 "not ids" "$QUIRE" tokenize "$DEMO" --decode 1 two
says "not ids: says which" "'two ' is not a list of token ids"
exits 3 "id outside the vocabulary" "$QUIRE" tokenize "$DEMO" --decode 1 99999
says "id outside: says the limit" "token id 99999 is outside the vocabulary of 1024"
exits 2 "text twice" "$QUIRE" tokenize "$DEMO" text --file "$T/two"
exits 4 "no such file" "$QUIRE" tokenize "$DEMO" --file "$T/none"
says "no such file: names it" "none"
mkdir "$T/bare"
cp "$DEMO/config.json" "$DEMO/model.safetensors" "$T/bare/"
exits 3 "no tokenizer" "$QUIRE" tokenize "$T/bare" text
says "no tokenizer: says so" "tokenizer"
done_testing
