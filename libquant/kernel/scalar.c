/* The portable row: plain C, 16 lanes as an array. The compiler may use what vectors every machine of its target has. */
#include "kernel/rows.h"
#include "base/bytes.h"
#include "tensor/half.h"

typedef struct { float f[16]; } v16;
typedef struct { uint8_t b[16]; } b16;

#define EACH for (int i = 0; i < 16; i++)

static inline v16 v_load(const float *p) { v16 r; memcpy(&r, p, sizeof r); return r; }
static inline void v_store(float *p, v16 v) { memcpy(p, &v, sizeof v); }
static inline b16 b_load(const void *p) { b16 r; memcpy(&r, p, sizeof r); return r; }
static inline v16 v_set(float x) { v16 r; EACH r.f[i] = x; return r; }
static inline v16 v_add(v16 a, v16 b) { EACH a.f[i] += b.f[i]; return a; }
static inline v16 v_sub(v16 a, v16 b) { EACH a.f[i] -= b.f[i]; return a; }
static inline v16 v_mul(v16 a, v16 b) { EACH a.f[i] *= b.f[i]; return a; }
static inline v16 v_div(v16 a, v16 b) { EACH a.f[i] /= b.f[i]; return a; }
static inline v16 v_max(v16 a, v16 b) { EACH a.f[i] = a.f[i] > b.f[i] ? a.f[i] : b.f[i]; return a; }
static inline v16 v_min(v16 a, v16 b) { EACH a.f[i] = a.f[i] < b.f[i] ? a.f[i] : b.f[i]; return a; }
static inline b16 b_and(b16 a, uint8_t m) { EACH a.b[i] = (uint8_t)(a.b[i] & m); return a; }
static inline b16 b_or(b16 a, b16 b) { EACH a.b[i] = (uint8_t)(a.b[i] | b.b[i]); return a; }
static inline b16 b_shr(b16 a, int n) { EACH a.b[i] = (uint8_t)(a.b[i] >> n); return a; }
static inline b16 b_shl(b16 a, int n) { EACH a.b[i] = (uint8_t)(a.b[i] << n); return a; }
static inline v16 v_from_u8(b16 a) { v16 r; EACH r.f[i] = (float)a.b[i]; return r; }
static inline v16 v_from_s8(b16 a) { v16 r; EACH r.f[i] = (float)(int8_t)a.b[i]; return r; }

static inline void v_pow2_halves(v16 n, v16 *p, v16 *q)
{
	EACH {
		uint32_t k = f32_bits(n.f[i]) - 0x4b400000, half = (uint32_t)((int32_t)k >> 1);
		p->f[i] = f32_from_bits((half + 127) << 23);
		q->f[i] = f32_from_bits((k - half + 127) << 23);
	}
}

static inline v16 v_from_f16(const void *p) { v16 r; EACH r.f[i] = f32_from_f16(load_u16((const uint8_t *)p + 2 * i)); return r; }
static inline v16 v_from_bf16(const void *p) { v16 r; EACH r.f[i] = f32_from_bf16(load_u16((const uint8_t *)p + 2 * i)); return r; }
static inline void v_to_f16(v16 v, void *p) { EACH store_u16((uint8_t *)p + 2 * i, f16_from_f32(v.f[i])); }
static inline void v_to_bf16(v16 v, void *p) { EACH store_u16((uint8_t *)p + 2 * i, bf16_from_f32(v.f[i])); }

static inline float v_sum(v16 v)
{
	for (int width = 8; width; width /= 2)
		for (int i = 0; i < width; i++)
			v.f[i] += v.f[i + width];
	return v.f[0];
}

#include "kernel/template.h"

static bool always(void)
{
	return true;
}

const struct kernels kernels_scalar = KERNEL_ROW("scalar", always, base);
