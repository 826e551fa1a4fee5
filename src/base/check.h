/*
 * Checks and compiler hints: what a reader may take for granted, said so that the compiler knows it too.
 *
 * Layer 0 (base). Assertions are for our own mistakes, never for the contents of a disk or the answer of the kernel:
 * those return an error. One condition per assertion.
 */
#ifndef QR_BASE_CHECK_H
#define QR_BASE_CHECK_H

#include <assert.h>
#include <stddef.h>

/* Aborts in builds without NDEBUG; otherwise the condition is parsed and not evaluated. */
#ifdef NDEBUG
#define QR_ASSERT(condition) ((void)sizeof((condition) ? 1 : 0))
#else
#define QR_ASSERT(condition) assert(condition)
#endif

#define QR_STATIC_ASSERT(condition, message) _Static_assert(condition, message)

#define QR_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define QR_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#define QR_ALWAYS_INLINE inline __attribute__((always_inline))
#define QR_NOINLINE __attribute__((noinline))
#define QR_COLD __attribute__((cold, noinline))
#define QR_PRINTF(format_index, first_argument) __attribute__((format(printf, format_index, first_argument)))

/* The width of a cache line, and what keeps two writers off each other's line. */
#define QR_CACHE_LINE_BYTES 64
#define QR_CACHE_ALIGNED __attribute__((aligned(QR_CACHE_LINE_BYTES)))

/* The struct that contains `member`, from a pointer to that member. */
#define QR_CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define QR_ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
