# -h, man page and completion say the same about every command.
. "$(dirname "$0")/lib.sh"

long_options() { grep -oE -- '--[a-z0-9][a-z0-9-]*' | sort -u; }
words() { tr -s ' \n' ' '; }
"$QUIRE" help --completion bash >"$T/completion"
is "completion is a shell script" "$(bash -n "$T/completion" && echo good)" good

commands=$("$QUIRE" help --list)
is "there are commands" "$(echo "$commands" | grep -cxE 'inspect|help')" 2
for c in $commands; do
	"$QUIRE" "$c" -h >"$T/h"
	is "$c: -h is help $c" "$("$QUIRE" help "$c" | cmp - "$T/h" && echo same)" same
	"$QUIRE" help --man "$c" >"$T/troff"
	sed -e 's/\\-/-/g' -e 's/\\&//g' -e 's/\\e/\\/g' "$T/troff" >"$T/man"

	h=$(awk '/^usage: / { on = 1; sub(/^usage: /, "") } NR > 1 && !/^             / { exit } on' "$T/h" | words)
	m=$(sed -n '/^\.SH SYNOPSIS/,/^\.SH/{/^\.SH/d;p}' "$T/man" | words)
	is "$c: synopsis" "$h" "$m"

	# options of -h: its option lines; of the man page: the tags of OPTIONS
	grep -E '^  (-|--)' "$T/h" | sed -E 's/^  ([^ ].*)/\1/' >"$T/lines"
	h=$(sed -E '/;/!s/  .*//' "$T/lines" | long_options)
	m=$(sed -n '/^\.SH OPTIONS/,/^\.SH [^O]/p' "$T/man" | grep -A1 '^\.TP' | grep -v '^\.TP' | long_options)
	is "$c: options" "$h" "$m"
	# every option of the synopsis exists
	s=$(sed -n '/^\.SH SYNOPSIS/,/^\.SH/p' "$T/man" | long_options)
	is "$c: the synopsis names real options" "$(comm -23 <(echo "$s") <(echo "$m") | tr -d '\n')" ""

	done_by_completion=$(cd "$T" && bash -c '. ./completion; COMP_WORDS=(quire "$1" --) COMP_CWORD=2; _quire; printf "%s\n" "${COMPREPLY[@]}"' - "$c" | long_options)
	is "$c: completion" "$done_by_completion" "$m"

	lines=$(wc -l <"$T/h") wide=$(awk '{ if (length > m) m = length } END { print m }' "$T/h")
	# more options than fit on a screen are no reason to leave some out
	limit=$((24 > $(wc -l <"$T/lines") + 12 ? 24 : $(wc -l <"$T/lines") + 12))
	if [ "$lines" -le $limit ] && [ "$wide" -le 100 ]; then ok "$c: help fits ($lines x $wide)"; else not_ok "$c: help is $lines lines of $wide columns"; fi
	if grep -q '^example:' "$T/h"; then ok "$c: has an example"; else not_ok "$c: has no example"; fi
	# the example's options exist
	e=$(sed -n '/^example:/,$p' "$T/h" | grep -E "quire $c( |$)" | sed "s/|.*//" | long_options)
	is "$c: the example uses real options" "$(comm -23 <(echo "$e") <(echo "$m") | tr -d '\n')" ""
	if command -v man >/dev/null 2>&1 && command -v groff >/dev/null 2>&1; then
		is "$c: troff is clean" "$(groff -man -ww -Tutf8 "$T/troff" 2>&1 >/dev/null | head -n 2)" ""
	fi
done
# a letter means one thing, whatever the command (a plural is the same thing)
for c in $commands; do "$QUIRE" help "$c"; done | sed -n 's/^  -\(.\), --\([a-z0-9-]*\).*/\1 \2/p' | sed 's/s$//' | sort -u >"$T/letters"
is "letters mean one thing" "$(cut -d' ' -f1 "$T/letters" | uniq -d | tr -d '\n')" ""
is "and there are some" "$(grep -cxE 'o output|d data|n window|s scheme|f force' "$T/letters")" 5
# what older scripts say is still taken
succeeds "older words: calibrate" "$QUIRE" calibrate "$DEMO" --data "$ROOT/examples/demo.eval.txt" -c 64 --samples 4 -s 3 -o "$T/x" -q
succeeds "older words: verify" "$QUIRE" verify "$DEMO" --data "$ROOT/examples/demo.eval.txt" -c 64 --chunks 2 -q
succeeds "older words: quantize" "$QUIRE" quantize "$DEMO" -s Q4_0 -n
succeeds "older words: generate" "$QUIRE" generate "$DEMO" "One" -n 2 -t 1 -k 3 -p 0.9 -s 5
succeeds "older words: tokenize" "$QUIRE" tokenize "$DEMO" -n "One"
succeeds "older words: fold" "$QUIRE" fold "$DEMO" --window 64 --samples 8 -s 1 --dry-run -o "$T/y" --data "$ROOT/examples/demo.eval.txt"

"$QUIRE" help --man >"$T/troff"
for c in $commands; do
	if grep -q "quire\\\\-$c (1)" "$T/troff"; then ok "quire.1 lists $c"; else not_ok "quire.1 lacks $c"; fi
done
c=$(cd "$T" && bash -c '. ./completion; COMP_WORDS=(quire insp) COMP_CWORD=1; _quire; echo "${COMPREPLY[@]}"')
is "completion of commands" "$c" inspect
c=$(cd "$T" && bash -c '. ./completion; COMP_WORDS=(quire inspect --kv-type q8) COMP_CWORD=3; _quire; echo "${COMPREPLY[@]}"')
is "completion of values" "$c" q8_0
complete() { (cd "$T" && bash -c '. ./completion; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _quire; echo "${COMPREPLY[@]}"' - "$@"); }
is "completion of schemes" "$(complete quire quantize --scheme Q4_K)" "Q4_K_S Q4_K_M"
is "completion of schemes by letter" "$(complete quire quantize -s iq4)" "iq4_nl iq4_xs"
is "completion of schemes after =" "$(complete quire quantize --scheme = Q4_K)" "Q4_K_S Q4_K_M"
is "completion of a list of schemes" "$(complete quire compare --schemes Q8_0,Q5_K)" "Q8_0,Q5_K_S Q8_0,Q5_K_M"
is "completion of roles" "$(complete quire quantize --tensor attn_)" "attn_q= attn_k= attn_v= attn_o="
is "completion of a rule's codec" "$(complete quire quantize --tensor attn_v = q5)" "q5_0 q5_1 q5_k"
is "completion of topics" "$(complete quire help sch)" schemes

# schemes: every name that is listed is taken, with the bits that are listed
succeeds "help schemes" "$QUIRE" help schemes
cp "$T/out" "$T/schemes"
is "presets and codecs" "$(grep -cE '^  (Q4_K_M|int4-g64|mxfp4) .* 4\.?[0-9]* ' "$T/schemes")" 3
unknown=
for s in $(sed -n '/^codecs:/q; s/^  \([A-Z][A-Z0-9_]*\) .*/\1/p' "$T/schemes") $(sed -n '1,/^codecs:/d; s/^  \([a-z][a-z0-9_-]*[0-9a-z]\)  *[0-9].*/\1/p' "$T/schemes"); do
	"$QUIRE" quantize "$DEMO" -o "$T/x.quire" --scheme "$s" --dry-run --json >"$T/plan" 2>&1 || unknown="$unknown $s"
done
is "every listed scheme is one" "$unknown" ""
is "what holds a codec" "$(sed -n 's/^  q4_k  *4.5  *256  //p; s/^  int3-g64  *3.25  *64  //p' "$T/schemes" | tr '\n' ';')" "gguf (llama.cpp), quire;quire, gptq (GPTQModel, vLLM);"
exits 2 "a scheme misspelt" "$QUIRE" quantize "$DEMO" -o "$T/x.quire" --scheme Q4_KM
says "a scheme misspelt: the nearest" "unknown scheme 'Q4_KM'; did you mean Q4_K_M\?"
exits 2 "a codec misspelt" "$QUIRE" quantize "$DEMO" -o "$T/x.quire" --tensor attn_v=q8
says "a codec misspelt: the nearest" "unknown codec 'q8'; did you mean q8_0\?"
exits 2 "no scheme at all" "$QUIRE" quantize "$DEMO" -o "$T/x.quire" --scheme xyzzyx
says "no scheme at all: where they are" "'quire help schemes' lists them"

# make install, into a scratch root
if command -v make >/dev/null 2>&1 && [ "$QUIRE" = "$ROOT/build/bin/quire" ]; then
	succeeds "make install" make -s -C "$ROOT" install DESTDIR="$T/root" PREFIX=/usr
	succeeds "the installed header compiles" cc -fsyntax-only -DNO_ZLIB -I"$T/root/usr/include" "$ROOT/examples/read_quire.c"
	is "installed program runs" "$("$T/root/usr/bin/quire-inspect" "$DEMO" --json | grep -c '^  "format"')" 1
	is "man pages" "$(ls "$T/root/usr/share/man/man1" | wc -l)" "$(($(echo "$commands" | wc -l) + 1))"
	succeeds "make uninstall" make -s -C "$ROOT" uninstall DESTDIR="$T/root" PREFIX=/usr
	is "uninstall leaves nothing" "$(find "$T/root" ! -type d)" ""
else
	skip "make install: only for the plain build"
fi
# topics are walked from the tables
succeeds "help models" "$QUIRE" help models
is "help models: a line for each family" "$(grep -cE '^  [a-z0-9_-]+ +[A-Za-z0-9]+ +[a-z0-9-]+$' "$T/out")" "$(grep -cE '^[[:space:]]F\(' libquant/model/family/family.h)"
succeeds "help formats" "$QUIRE" help formats
prints "help formats: who loads it" 'loaded by llama.cpp'
succeeds "help methods" "$QUIRE" help methods
prints "help methods: those of folds" '^  joint '
exits 2 "help of nothing" "$QUIRE" help modls
done_testing
