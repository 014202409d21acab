#include "base/rng.h"

#include <math.h>

double rng_normal(struct rng *r)
{
	double u = 1.0 - rng_unit(r); /* (0, 1]: the logarithm stays finite */
	return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * rng_unit(r));
}
