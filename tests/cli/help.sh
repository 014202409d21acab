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
"$QUIRE" help --man >"$T/troff"
for c in $commands; do
	if grep -q "quire\\\\-$c (1)" "$T/troff"; then ok "quire.1 lists $c"; else not_ok "quire.1 lacks $c"; fi
done
c=$(cd "$T" && bash -c '. ./completion; COMP_WORDS=(quire insp) COMP_CWORD=1; _quire; echo "${COMPREPLY[@]}"')
is "completion of commands" "$c" inspect
c=$(cd "$T" && bash -c '. ./completion; COMP_WORDS=(quire inspect --kv-type q8) COMP_CWORD=3; _quire; echo "${COMPREPLY[@]}"')
is "completion of values" "$c" q8_0

# make install, into a scratch root
if command -v make >/dev/null 2>&1 && [ "$QUIRE" = "$ROOT/build/bin/quire" ]; then
	succeeds "make install" make -s -C "$ROOT" install DESTDIR="$T/root" PREFIX=/usr
	is "installed program runs" "$("$T/root/usr/bin/quire-inspect" "$DEMO" --json | grep -c '^  "format"')" 1
	is "man pages" "$(ls "$T/root/usr/share/man/man1" | wc -l)" "$(($(echo "$commands" | wc -l) + 1))"
	succeeds "make uninstall" make -s -C "$ROOT" uninstall DESTDIR="$T/root" PREFIX=/usr
	is "uninstall leaves nothing" "$(find "$T/root" ! -type d)" ""
else
	skip "make install: only for the plain build"
fi
done_testing
