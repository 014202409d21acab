# generate: the same text every time, ends where it should, and says what is wrong.
. "$(dirname "$0")/lib.sh"
prompt="There was once a child called"

succeeds "greedy" "$QUIRE" generate "$DEMO" "$prompt" --tokens 40
prints "begins with the prompt" "^$prompt"
greedy=$(cat "$T/out")
is "text came" "$((${#greedy} > ${#prompt} + 60))" 1
for t in 1 3; do
	is "the same with $t threads" "$("$QUIRE" generate "$DEMO" "$prompt" --tokens 40 --threads $t)" "$greedy"
done
is "the same with scalar kernels" "$(QUIRE_CPU=scalar "$QUIRE" generate "$DEMO" "$prompt" --tokens 40)" "$greedy"
is "prompt from standard input" "$(echo "$prompt" | "$QUIRE" generate "$DEMO" --tokens 40)" "$greedy"
is "--no-prompt" "$prompt$("$QUIRE" generate "$DEMO" "$prompt" --tokens 40 --no-prompt)" "$greedy"
is "--temperature 0 is greedy" "$("$QUIRE" generate "$DEMO" "$prompt" --tokens 40 --temperature 0)" "$greedy"
is "--top-k 1 is greedy" "$("$QUIRE" generate "$DEMO" "$prompt" --tokens 40 --top-k 1 --temperature 2)" "$greedy"
is "a tiny --top-p is greedy" "$("$QUIRE" generate "$DEMO" "$prompt" --tokens 40 --top-p 0.000001)" "$greedy"

a=$("$QUIRE" generate "$DEMO" "$prompt" --tokens 40 --temperature 1.5 --seed 7)
is "a seed repeats" "$("$QUIRE" generate "$DEMO" "$prompt" --tokens 40 --temperature 1.5 --seed 7)" "$a"
b=$("$QUIRE" generate "$DEMO" "$prompt" --tokens 40 --temperature 1.5 --seed 8)
if [ "$a" != "$b" ]; then ok "another seed, another text"; else not_ok "seeds 7 and 8 give the same text"; fi

succeeds "--json" "$QUIRE" generate "$DEMO" "$prompt" --tokens 40 --json
is "--json: text" "$prompt$(sed -n 's/^  "text": "\(.*\)",$/\1/p' "$T/out" | sed 's/\\"/"/g')" "$greedy"
is "--json: tokens" "$(json "$T/out" tokens)" 40
is "--json: end" "$(json "$T/out" end)" length
is "--json: prompt tokens" "$(json "$T/out" prompt_tokens)" "$("$QUIRE" tokenize "$DEMO" "$prompt" --count)"

word=$(echo "${greedy#"$prompt"}" | cut -d' ' -f4)
succeeds "--stop" "$QUIRE" generate "$DEMO" "$prompt" --tokens 40 --stop "$word" --stop "no such text" --json
is "--stop: end" "$(json "$T/out" end)" stop
is "--stop: nothing after it" "$(sed -n 's/^  "text": "\(.*\)",$/\1/p' "$T/out" | grep -cF "$word")" 0
stopped=$("$QUIRE" generate "$DEMO" "$prompt" --tokens 40 --stop "$word" && echo .)
rest=${greedy#"${stopped%$'\n'.}"}
is "--stop: the stream ends right before it" "${rest:0:${#word}}" "$word"

# 256 is the context of this model
succeeds "to the end of the context" "$QUIRE" generate "$DEMO" "$prompt" --tokens 100000 --json
end=$(json "$T/out" end)
case $end in
context) is "context: all of it" "$(($(json "$T/out" tokens) + $(json "$T/out" prompt_tokens)))" 256 ;;
eos) ok "context: the text ended before" ;;
*) not_ok "context: ended by $end" ;;
esac
exits 2 "prompt longer than the context" "$QUIRE" generate "$DEMO" "$(head -c 3000 "$ROOT/examples/demo.eval.txt")"
says "longer than the context: says both" "the prompt has [0-9]+ tokens, the context of this model holds 256"
exits 2 "--tokens 0" "$QUIRE" generate "$DEMO" x --tokens 0
exits 2 "--top-p 2" "$QUIRE" generate "$DEMO" x --top-p 2
exits 2 "--temperature -2" "$QUIRE" generate "$DEMO" x --temperature -2
exits 2 "--top-k -1" "$QUIRE" generate "$DEMO" x --top-k -1
exits 2 "empty prompt without BOS" "$QUIRE" generate "$DEMO" "" --no-special
succeeds "empty prompt" "$QUIRE" generate "$DEMO" "" --tokens 5
"$QUIRE" generate "$DEMO" "$prompt" >/dev/full 2>"$T/err"
is "full disk" $? 4
is "a reader that leaves: quiet" "$("$QUIRE" generate "$DEMO" "$prompt" --tokens 200 2>&1 >/dev/full | grep -vc 'cannot write')" 0
exits 0 "-v says how fast" "$QUIRE" generate "$DEMO" "$prompt" --tokens 5 -v
says "-v: tokens per second" 'new 5 tokens, [0-9.]+ tokens/s'
mkdir "$T/odd"
cp "$DEMO"/tokenizer* "$DEMO/model.safetensors" "$T/odd/"
sed 's/"num_hidden_layers": 5/"num_hidden_layers": 6/' "$DEMO/config.json" >"$T/odd/config.json"
exits 3 "a layer is missing" "$QUIRE" generate "$T/odd" x
says "a layer is missing: names a tensor" 'model\.layers\.5\.'
done_testing
