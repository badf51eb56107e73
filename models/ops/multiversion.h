#pragma once

// A function marked TUNEONCE_MULTIVERSION is compiled for AVX-512, for AVX2 and for the plain machine, and
// the loader picks one: a portable build at the speed of -march=native. Helpers it calls must be inlined into
// it.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define TUNEONCE_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TUNEONCE_MULTIVERSION
#endif

#if defined(__GNUC__)
#define TUNEONCE_INLINE inline __attribute__((always_inline))
#else
#define TUNEONCE_INLINE inline
#endif
