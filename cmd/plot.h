#ifndef QUIRE_CMD_PLOT_H
#define QUIRE_CMD_PLOT_H
/*
 * Plots as inline SVG. Colours are CSS classes (s0 .. s7, grid, axis), so that a page can be light, dark or printed.
 * Text is 12 units high: draw at about the width that will be seen, and twice when a page is for phones, too.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/strbuf.h"

enum { PLOT_COLOURS = 8 };

struct plot_point {
	double x, y, low, high;  /* low and high: whiskers, NaN without */
	const char *label;       /* NULL: none */
	bool open;               /* a ring instead of a disc */
};
struct plot_series {
	const struct plot_point *point;
	size_t count;
	unsigned colour;         /* those from PLOT_COLOURS on come again, dashed */
	bool line, dots, step;   /* step: stays until the next point */
};
struct plot {
	const char *title, *x_label, *y_label; /* title: for screen readers */
	double width, height;
	bool log_y, whole_x;     /* whole_x: ticks at whole numbers only */
	double mark_x, mark_y;   /* dashed lines at limits; NaN: none */
	const char *mark_x_label, *mark_y_label;
	const struct plot_series *series;
	size_t count;
};
void plot_svg(const struct plot *p, struct strbuf *out);

/* Text for HTML and XML: markup escaped, control characters and bytes that are no UTF-8 as '?'. */
void html_text(struct strbuf *out, const char *text);

#endif
