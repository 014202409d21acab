#include "base/sha256_blocks.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

#define SHA __attribute__((target("sha,ssse3,sse4.1")))

/* Four rounds a step. The state lies as ABEF and CDGH, the order that sha256rnds2 takes. */
SHA static void blocks_x86(uint32_t state[8], const uint8_t *p, size_t count, const uint32_t k[64])
{
	const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
	__m128i low = _mm_loadu_si128((const __m128i *)(const void *)state);
	__m128i high = _mm_loadu_si128((const __m128i *)(const void *)(state + 4));
	low = _mm_shuffle_epi32(low, 0xb1);     /* CDAB */
	high = _mm_shuffle_epi32(high, 0x1b);   /* EFGH */
	__m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xf0);

	for (; count; count--, p += 64) {
		__m128i was_abef = abef, was_cdgh = cdgh, w[4];
		for (int i = 0; i < 4; i++)
			w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i)), swap);
#pragma GCC unroll 16
		for (int i = 0; i < 16; i++) {
			__m128i now = w[i & 3];
			__m128i sum = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)(const void *)(k + 4 * i)));
			cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
			abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
			if (i >= 12)
				continue;
			/* the words sixteen further on, from the four groups in hand */
			__m128i next = _mm_sha256msg1_epu32(now, w[(i + 1) & 3]);
			next = _mm_add_epi32(next, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
			w[i & 3] = _mm_sha256msg2_epu32(next, w[(i + 3) & 3]);
		}
		abef = _mm_add_epi32(abef, was_abef);
		cdgh = _mm_add_epi32(cdgh, was_cdgh);
	}
	low = _mm_shuffle_epi32(abef, 0x1b);    /* FEBA */
	high = _mm_shuffle_epi32(cdgh, 0xb1);   /* DCHG */
	_mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(low, high, 0xf0));
	_mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(high, low, 8));
}

sha256_blocks *sha256_accelerated(void)
{
	unsigned a, b = 0, c = 0, d;
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_SHA))
		return NULL;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
		return NULL;
	return blocks_x86;
}

#elif defined(__aarch64__) && defined(__linux__)
#include <arm_neon.h>
#include <sys/auxv.h>

#ifdef __clang__
#define SHA __attribute__((target("crypto")))
#else
#define SHA __attribute__((target("+crypto")))
#endif

enum { HAS_SHA2 = 1 << 6 }; /* HWCAP_SHA2 of the kernel's interface */

SHA static void blocks_arm(uint32_t state[8], const uint8_t *p, size_t count, const uint32_t k[64])
{
	uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);

	for (; count; count--, p += 64) {
		uint32x4_t was_abcd = abcd, was_efgh = efgh, w[4];
		for (int i = 0; i < 4; i++)
			w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p + 16 * i)));
		for (int i = 0; i < 16; i++) {
			uint32x4_t sum = vaddq_u32(w[i & 3], vld1q_u32(k + 4 * i)), before = abcd;
			abcd = vsha256hq_u32(abcd, efgh, sum);
			efgh = vsha256h2q_u32(efgh, before, sum);
			if (i < 12)
				w[i & 3] = vsha256su1q_u32(vsha256su0q_u32(w[i & 3], w[(i + 1) & 3]), w[(i + 2) & 3],
							   w[(i + 3) & 3]);
		}
		abcd = vaddq_u32(abcd, was_abcd);
		efgh = vaddq_u32(efgh, was_efgh);
	}
	vst1q_u32(state, abcd);
	vst1q_u32(state + 4, efgh);
}

sha256_blocks *sha256_accelerated(void)
{
	return getauxval(AT_HWCAP) & HAS_SHA2 ? blocks_arm : NULL;
}

#else

sha256_blocks *sha256_accelerated(void)
{
	return NULL;
}
#endif
