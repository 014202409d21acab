# The objects of docs/json.md: every key that is printed is documented, and every documented key is printed.
. "$(dirname "$0")/lib.sh"
docs=$ROOT/docs/json.md
calib=$DEMO.calib.txt

keys() { # FILE...: the keys of JSON, but for those that files made up themselves
	awk '/"facts": \{$/ { skip = 1; print } skip && /^ *\},?$/ { skip = 0 } !skip' "$@" | grep -o '"[a-z][a-z0-9_]*": *' | tr -d '": ' | grep -vx schema | sort -u
}
section() { # SCHEMA: its part of the documentation
	awk -v s="$1" '/^## / { on = $2 == s } on' "$docs"
}
documented() { grep -o '`[a-z][a-z0-9_]*`' | tr -d '`' | sort -u; }

schema_is() { # SCHEMA FILE...: the keys of these runs together
	local schema=$1 f
	shift
	for f; do is "$schema: ${f##*/} says so" "$(head -n 2 "$f" | grep -o 'quire-[a-z]*/[0-9]*')" "$schema"; done
	section "$schema" | documented >"$T/known"
	# lines that say "with" or "from" are about keys that need an option
	section "$schema" | awk '/^- / { always = !/with|from|only/ } always' | documented >"$T/always"
	keys "$@" >"$T/printed"
	is "$schema: what is printed is documented" "$(comm -23 "$T/printed" "$T/known" | tr '\n' ' ')" ""
	is "$schema: what is documented is printed" "$(comm -13 "$T/printed" "$T/always" | tr '\n' ' ')" ""
}

run() { # NAME COMMAND...
	local name=$1
	shift
	succeeds "$name" "$QUIRE" "$@" -q --json
	cp "$T/out" "$T/$name"
}

run inspect inspect "$DEMO" --stats --check
run mixture inspect "$ROOT/tests/golden/model/mixtral"
schema_is quire-inspect/1 "$T/inspect" "$T/mixture"
run plan quantize "$DEMO" -s Q4_0 -o "$T/q.quire" --dry-run
schema_is quire-plan/1 "$T/plan"
run calibrate calibrate "$DEMO" --data "$calib" --samples 8 --collect full -o "$T/stats"
schema_is quire-calibrate/1 "$T/calibrate"
run quantize quantize "$DEMO" -s Q4_0 --method best --distill 1 --stats "$T/stats" --report "$T/report.json" -o "$T/q.quire"
run fold fold "$DEMO" --kv-heads 4 --method mean --data "$calib" --samples 8 -o "$T/folded"
run share fold "$DEMO" --share-layers suffix:1 --share-method reuse --data "$calib" --samples 8 -o "$T/shared"
schema_is quire-output/1 "$T/quantize" "$T/fold" "$T/share"
schema_is quire-report/1 "$T/report.json"
run generate generate "$DEMO" "One day" --tokens 4
schema_is quire-generate/1 "$T/generate"
run tokenize tokenize "$DEMO" "One day" --pieces
schema_is quire-tokenize/1 "$T/tokenize"
QUIRE_CPU=scalar,sgemm run doctor doctor
schema_is quire-doctor/1 "$T/doctor"
is "doctor names the rows in use" "$(grep -o '"kernels":"[a-z]*","products":"[a-z]*"' "$T/doctor")" '"kernels":"scalar","products":"sgemm"'
judge="--data $DEMO.eval.txt --ctx 64 --chunks 10"
run against verify "$T/q.quire" --against "$DEMO" $judge --kl-by-position --draft-length 1..2 --copy-test --check-decode --noise --attribute layers \
	--kv-cache f16 --max-kl 1 --max-ppl 1e6
run saved verify "$DEMO" $judge --save-baseline "$T/base"
run baseline verify "$T/q.quire" --data "$DEMO.eval.txt" --baseline "$T/base" --undecided pass --max-kl "$(json "$T/against" kl_mean)"
schema_is quire-verify/1 "$T/against" "$T/saved" "$T/baseline"
run compare compare "$DEMO" $judge --schemes Q8_0 --work "$T/work" --stats "$T/stats" --method rtn --attribute layers --max-kl 1
run two compare "$DEMO" $judge --schemes Q8_0,Q4_0 --work "$T/work" --method rtn
schema_is quire-compare/1 "$T/compare" "$T/two"
is "verify and compare number positions alike" "$(grep -c '"from": 32,' "$T/against" "$T/two" | tr '\n' ' ' | sed 's/[^ ]*://g')" "1 2 "
done_testing
