#!/usr/bin/env python3
"""Writes the codebooks of ggml's iq types, from the public gguf package: libquant/kernel/grids.c, docs/formats/grids.md, and
the part between the two marks of include/quire_read.h. An entry is its levels' numbers, two bits each (three in the iq3
types), the first element lowest. Needs numpy and gguf."""
import os

import gguf.quants as quants

TYPES = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S")
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def entries(name):
    kind = getattr(quants, name)
    kind.init_grid()
    levels, bits = list(kind.grid_map), 3 if "3" in name else 2
    found = [sum(levels.index(int(v)) << bits * i for i, v in enumerate(row)) for row in kind.grid.reshape(kind.grid_shape)]
    assert found == sorted(set(found))
    return found


def lines(values, form, per_line, end):
    return "\n".join(" ".join(form % v for v in values[i:i + per_line]) + end for i in range(0, len(values), per_line))


def table(name, prefix, static):
    values = entries(name)
    return "%sconst uint16_t %s%s[%d] = {\n%s\n};\n" % (static, prefix, name.lower() + "_grid", len(values),
                                                       "\n".join("\t" + row for row in lines(values, "%d,", 24, "").split("\n")))


with open(os.path.join(root, "libquant/kernel/grids.c"), "w") as f:
    f.write("/* Written by tests/golden/make_grids.py. */\n#include \"kernel/grids.h\"\n\n" + "\n".join(table(n, "", "") for n in TYPES))
with open(os.path.join(root, "docs/formats/grids.md"), "w") as f:
    f.write("""# Codebooks of the iq types

Part of GGUF's formats of these names ([codecs.md](codecs.md)), written by `tests/golden/make_grids.py` from the public gguf
package. Entry k of a codebook is the k-th number here, hexadecimal, row by row; all are in ascending order. The levels of its
elements are its bits, two each (three in iq3_xxs and iq3_s), the first element's lowest. iq1_m has the codebook of iq1_s.
""")
    for n in TYPES:
        f.write("\n## %s\n\n```\n%s\n```\n" % (n.lower(), lines(entries(n), "%04x", 24, "")))
path = os.path.join(root, "include/quire_read.h")
text = open(path).read()
begin, end = "/* codebooks: docs/formats/grids.md */\n", "/* end of codebooks */\n"
head, tail = text[:text.index(begin) + len(begin)], text[text.index(end):]
open(path, "w").write(head + "".join(table(n, "qrd_", "static ") for n in TYPES) + tail)
