# The command line itself: usage mistakes, links, broken outputs, kernels by name.
. "$(dirname "$0")/lib.sh"

# usage NAME PATTERN COMMAND...: exit 2, nothing on stdout, one line on stderr that says what to do
usage() {
	local name=$1 pattern=$2
	shift 2
	exits 2 "$name: exit code" "$@"
	says "$name: message" "$pattern"
	is "$name: one line" "$(wc -l <"$T/err") $(wc -c <"$T/out")" "1 0"
}
usage "no command" "^quire: a command is missing; 'quire help'" "$QUIRE"
usage "unknown command" "^quire: unknown command 'inspcet'; did you mean 'inspect'\?" "$QUIRE" inspcet
usage "far command" "^quire: unknown command 'xyzzy'; 'quire help' lists" "$QUIRE" xyzzy
usage "option before command" "options come after the command" "$QUIRE" --json inspect
usage "unknown option" "^quire inspect: unknown option --tensor; did you mean --tensors\?" "$QUIRE" inspect "$DEMO" --tensor
usage "no abbreviations" "unknown option --stat; did you mean --stats\?" "$QUIRE" inspect "$DEMO" --stat
usage "far option" "unknown option --qqqqqqqqq; 'quire help inspect'" "$QUIRE" inspect "$DEMO" --qqqqqqqqq
usage "single dash" "did you mean --stats\?" "$QUIRE" inspect "$DEMO" -stats
usage "unknown letter" "unknown option -Z" "$QUIRE" inspect "$DEMO" -Z
usage "value for a flag" "--stats takes no value" "$QUIRE" inspect "$DEMO" --stats=yes
usage "missing value" "--ctx needs a value: --ctx N" "$QUIRE" inspect "$DEMO" --ctx
usage "option as value" "--kv-type needs a value.*--NAME=VALUE" "$QUIRE" inspect "$DEMO" --kv-type --json
usage "not a number" "--ctx needs a whole number, not '12x'" "$QUIRE" inspect "$DEMO" --ctx 12x
usage "huge number" "--ctx needs a whole number" "$QUIRE" inspect "$DEMO" --ctx 99999999999999999999
usage "negative number" "--ctx needs a number of tokens above 0" "$QUIRE" inspect "$DEMO" --ctx -5
usage "threads" "--threads needs a number from 1" "$QUIRE" inspect "$DEMO" --threads -1
usage "missing argument" "missing; usage: quire inspect MODEL" "$QUIRE" inspect
usage "extra argument" "unexpected argument 'b'; usage: quire inspect" "$QUIRE" inspect a b
usage "help of unknown" "unknown command 'inspekt'; did you mean 'inspect'" "$QUIRE" help inspekt
usage "json without results" "unknown option --json" "$QUIRE" help --json
usage "control characters" '^quire: unknown command .\?\[31m' "$QUIRE" $'\033[31m'

succeeds "version" "$QUIRE" --version
prints "version: text" '^quire [0-9]+\.[0-9]+\.[0-9]+$'
succeeds "help" "$QUIRE" help
prints "help lists inspect" '^  inspect +tells'
cp "$T/out" "$T/help"
succeeds "--help" "$QUIRE" --help
is "--help is help" "$(cmp "$T/out" "$T/help" && echo same)" same
succeeds "a separate value and =" "$QUIRE" inspect "$DEMO" --json -c 100
cp "$T/out" "$T/a"
succeeds "value after =" "$QUIRE" inspect --json --ctx=100 -- "$DEMO"
is "both forms mean the same" "$(cmp "$T/out" "$T/a" && echo same)" same
succeeds "letters together" "$QUIRE" inspect -qvc100 --json "$DEMO"
is "letters mean the same" "$(cmp "$T/out" "$T/a" && echo same)" same

# threads that wait do not spin, unless the user says so; libgomp tells what it was told
spin() { env -u OMP_NUM_THREADS -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT OMP_DISPLAY_ENV=verbose "$@" "$QUIRE" --version 2>&1 | sed -n 's/.*\(WAIT_POLICY\|SPINCOUNT\) = *//p' | tail -n 2 | tr -d "'\n"; }
case $(spin env) in
PASSIVE1000)
	is "waiting is passive, but for a moment" "$(spin env)" PASSIVE1000
	is "a user's policy stays" "$(spin env OMP_WAIT_POLICY=active)" ACTIVE30000000000
	is "a user's count stays" "$(spin env GOMP_SPINCOUNT=77)" PASSIVE77 ;;
*) if [ -z "${SANITIZED-}" ] && ldd "$QUIRE" 2>/dev/null | grep -q libgomp && [ "$(env -u OMP_NUM_THREADS nproc)" -gt 1 ]; then not_ok "waiting is passive (got '$(spin env)')"; else skip "waiting: no libgomp, one core, or a build without OpenMP"; fi ;;
esac

# a processor that OpenBLAS does not know is not taken for one without AVX; what the user says stays
core() { env -u OPENBLAS_CORETYPE OPENBLAS_VERBOSE=2 "$@" "$QUIRE" --version 2>&1 | sed -n 's/^Core: //p' | tail -n 1; }
if [ -n "$(core env)" ] && grep -q '^flags.* avx2 ' /proc/cpuinfo 2>/dev/null; then
	is "OpenBLAS computes for a processor with AVX2" "$(core env | grep -cE '^(Haswell|Zen|Excavator|SkylakeX|Cooperlake|SapphireRapids)$')" 1
	is "a user's processor stays" "$(core env OPENBLAS_CORETYPE=Nehalem)" Nehalem
else skip "OpenBLAS: one kind of processor, or no AVX2"; fi

ln -s "$QUIRE" "$T/quire-inspect"
ln -s "$QUIRE" "$T/quire-nothing"
succeeds "quire-inspect" "$T/quire-inspect" --json --ctx 100 "$DEMO"
is "a link runs the command" "$(cmp "$T/out" "$T/a" && echo same)" same
exits 2 "quire-nothing" "$T/quire-nothing"
says "an unknown link" "unknown command 'nothing'"

exits 4 "a file that is not there" "$QUIRE" inspect "$T/no/such/file"
says "names the file" "^quire inspect: .*no/such/file"

# standard output is no place for a model; a folder or file of that name may be one
for to in hf safetensors gguf quire; do
	usage "convert to - as $to" "cannot write (a folder )?to standard output.*'\./-' is a (file|folder)" "$QUIRE" convert "$DEMO" -o - --to $to
done
is "nothing is named -" "$(ls -d ./-* 2>/dev/null)" ""
(cd "$T" && "$QUIRE" convert "$DEMO" -o ./- -q) && is "a folder named -" "$([ -e "$T/-/config.json" ] && echo there)" there
succeeds "JUnit on standard output" "$QUIRE" verify "$DEMO" --data "$ROOT/examples/demo.eval.txt" --ctx 64 --chunks 8 --max-ppl 100 --junit -
prints "JUnit on standard output: it is there" '<testsuite '
is "JUnit on standard output: and nothing else" "$(sed -n '1p;$p' "$T/out" | tr '\n' ' ')" '<?xml version="1.0" encoding="UTF-8"?> </testsuites> '
usage "JUnit and JSON" "--json and --junit both go to standard output; name a file" "$QUIRE" verify "$DEMO" --data "$ROOT/examples/demo.eval.txt" --ctx 64 --chunks 8 --max-ppl 100 --junit - --json

# output that cannot be written
"$QUIRE" inspect "$DEMO" --tensors >/dev/full 2>"$T/err"
is "full disk: exit code" $? 4
says "full disk: message" "cannot write to standard output: "
"$QUIRE" --version >/dev/full 2>"$T/err"
is "full disk: version" $? 4
"$QUIRE" help >&- 2>"$T/err"
is "closed stdout" $? 4
(
	trap '' PIPE # the program must not depend on what it inherits
	{ "$QUIRE" inspect "$DEMO" --tensors; echo $? >"$T/rc"; } 2>"$T/err" | :
	true
)
# the reader may end after everything was written: both are fine, noise is not
is "broken pipe: quiet" "$(wc -c <"$T/err")" 0
case $(cat "$T/rc") in 0 | 141) ok "broken pipe: exit code" ;; *) not_ok "broken pipe: exit code $(cat "$T/rc")" ;; esac

for cpu in scalar auto ''; do
	QUIRE_CPU=$cpu succeeds "QUIRE_CPU='$cpu'" "$QUIRE" inspect "$DEMO" --stats --json
	cp "$T/out" "$T/cpu-${cpu:-none}"
done
is "statistics are the same on every instruction set" "$(cmp "$T/cpu-scalar" "$T/cpu-auto" && echo same)" same
QUIRE_CPU=vax usage "unknown QUIRE_CPU" "QUIRE_CPU=vax cannot be used.*auto, scalar" "$QUIRE" inspect "$DEMO"

for t in 1 2 7; do "$QUIRE" inspect "$DEMO" --stats --json --threads $t >"$T/threads-$t"; done
is "threads do not change results" "$(cmp "$T/threads-1" "$T/threads-2" && cmp "$T/threads-1" "$T/threads-7" && echo same)" same
done_testing
