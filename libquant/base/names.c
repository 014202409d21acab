#include "base/names.h"

#include <string.h>

enum { NAME_LIMIT = 63 };

unsigned name_distance(const char *a, const char *b, unsigned limit)
{
	unsigned row[3][NAME_LIMIT + 1];
	size_t n = strlen(a), m = strlen(b);
	if (n > NAME_LIMIT || m > NAME_LIMIT || n > m + limit || m > n + limit)
		return limit + 1;
	for (size_t j = 0; j <= m; j++)
		row[0][j] = (unsigned)j;
	unsigned least = 0, least_before;
	for (size_t i = 1; i <= n; i++) {
		unsigned *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
		least_before = least;
		least = now[0] = (unsigned)i;
		for (size_t j = 1; j <= m; j++) {
			unsigned d = last[j - 1] + (a[i - 1] != b[j - 1]);
			if (last[j] + 1 < d)
				d = last[j] + 1;
			if (now[j - 1] + 1 < d)
				d = now[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < d)
				d = before[j - 2] + 1;
			now[j] = d;
			least = d < least ? d : least;
		}
		/* a swap looks two rows back */
		if (least > limit && least_before > limit)
			return limit + 1;
	}
	return row[n % 3][m] <= limit ? row[n % 3][m] : limit + 1;
}
