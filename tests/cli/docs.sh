# What README and the documents say of commands is true: README's commands print what it shows (console.sh: those of the others).
. "$(dirname "$0")/lib.sh"
exits 0 "README.md: its commands print what it says" tests/console check README.md
sed 's/^/# /' "$T/out"

# every option that a document gives a command is one of its options
mkdir "$T/help"
for c in $("$QUIRE" help --list); do "$QUIRE" help "$c" >"$T/help/$c" 2>&1; done
for doc in README.md docs/*.md docs/formats/*.md; do
	# code, in fences and in backticks (a span may go over a line's end), with continued lines joined; a command a line
	{
		awk '/^```/ { on = !on; next } on' "$doc" | sed -e ':a' -e '/\\$/N; s/\\\n//; ta' | sed 's/^\$ //'
		awk '/^```/ { on = !on; next } !on' "$doc" | tr '\n' ' ' | grep -o '`[^`]*`' | tr -d '`'
	} | sed -E 's/(\||&&|;)+/\n/g' | sed -n -E 's/.*\bquire ([a-z]+) (.*)/\1 \2/p' | grep -- ' --' >"$T/commands"
	unknown=
	while read -r c words; do
		for w in $words; do
			case $w in --[a-z]*)
				for o in ${w//|/ }; do
					o=$(expr "$o" : '\(--[a-z0-9-]*\)')
					[ -e "$T/help/$c" ] && ! grep -qE -- "(^|[ ,])$o([ =,;]|\$)" "$T/help/$c" && unknown="$unknown $c:$o"
				done ;;
			esac
		done
	done <"$T/commands"
	[ -s "$T/commands" ] && is "$doc: options are known ($(wc -l <"$T/commands") commands)" "$unknown" ""
done

# the plan that compare.md shows is the one it uses
is "docs/compare.md: the plan" "$(sed -n '/^weights  /,/^```/p' docs/compare.md | grep -v '^```')" "$(grep -v "^#" examples/demo.plan)"

# fences N of a language in a document
fence() { awk -v lang="\`\`\`$2" -v n="$3" '$0 == lang { on = ++k == n; next } /^```/ { on = 0 } on' "$ROOT/$1"; }
mkdir "$T/run" "$T/bin"
ln -s "$QUIRE" "$T/bin/quire"
PATH=$T/bin:$PATH
head -c 30000 examples/demo.eval.txt >"$T/run/eval.txt"
ln -s "$DEMO" "$T/run/original"
ln -s "$DEMO" "$T/run/model"

# CI: the baseline, and what the workflow's steps run
step() { awk -v name="      - name: $1" '$0 == name { on = 1; next } on && /^      - / { exit } on' "$ROOT/docs/ci.md" | sed -n '/run: /,$p' | sed 's/^ *run: |\{0,1\}//'; }
in_run() { (cd "$T/run" && bash -euc "$1"); }
exits 0 "docs/ci.md: the baseline" in_run "$(fence docs/ci.md sh 1)"
exits 0 "docs/ci.md: quantize" in_run "$(step Quantize)"
exits 0 "docs/ci.md: verify" in_run "GITHUB_STEP_SUMMARY=summary; export GITHUB_STEP_SUMMARY; $(step Verify)"
is "docs/ci.md: annotations, a report, a summary" "$(grep -c '^::notice' "$T/out") $(grep -c '<testcase' "$T/run/verify.xml") $(grep -c 'pass |$' "$T/run/summary")" "4 5 4"
if python3 -c 'import yaml' 2>/dev/null; then
	fence docs/ci.md yaml 1 >"$T/model.yml"
	exits 0 "docs/ci.md: the workflow is YAML" python3 -c 'import sys, yaml; w = yaml.safe_load(open(sys.argv[1])); assert len(w["jobs"]["verify"]["steps"]) == 5' "$T/model.yml"
else skip "docs/ci.md: the workflow is YAML"; fi

# a cluster: stand-ins where there is no GNU parallel or Slurm, which run one job after the other
cat >"$T/bin/parallel" <<'END'
#!/bin/bash
# -j N COMMAND... ::: ARGUMENT...
shift 2
words=()
while [ "$1" != ::: ]; do words+=("$1"); shift; done
shift
for a; do "${words[@]//\{\}/$a}" || exit 1; done
END
cat >"$T/bin/sbatch" <<'END'
#!/bin/bash
# --parsable SCRIPT: runs its array, prints an id; --dependency=... --wrap COMMAND: runs that
if [ "$1" = --parsable ]; then
	range=$(sed -n 's/^#SBATCH --array=//p' "$2")
	for i in $(seq "${range%-*}" "${range#*-}"); do
		SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_TASK_COUNT=${range#*-} SLURM_CPUS_PER_TASK=$(sed -n 's/^#SBATCH --cpus-per-task=//p' "$2") bash "$2" >&2 || exit 1
	done
	echo 17
elif [ "$1 $2" = "--dependency=afterok:17 --wrap" ]; then
	bash -c "$3"
else exit 1; fi
END
chmod +x "$T/bin/parallel" "$T/bin/sbatch"
cp "$T/run/model-q4.quire" "$T/run/model.quire"
exits 0 "docs/cluster.md: one run" in_run 'quire verify model.quire --against original --data eval.txt --max-kl 0.02 --json -q >whole.json'
exits 0 "docs/cluster.md: GNU parallel" in_run "$(fence docs/cluster.md sh 1)"
prints "docs/cluster.md: GNU parallel: the verdict" '^verdict +pass'
rm -f "$T"/run/part-*
exits 0 "docs/cluster.md: without it" in_run "$(sed -n 's/^Without GNU parallel: `\(.*\)`.*/\1/p' docs/cluster.md)"
is "docs/cluster.md: without it: all parts" "$(ls "$T"/run/part-*.part | wc -l)" 8
fence docs/cluster.md sh 2 >"$T/run/verify.sh"
exits 0 "docs/cluster.md: Slurm" in_run "$(fence docs/cluster.md sh 3)"
if cmp -s "$T/run/whole.json" "$T/run/verify.json"; then ok "docs/cluster.md: Slurm: the report of one run"; else not_ok "docs/cluster.md: Slurm: the report of one run"; fi
done_testing
