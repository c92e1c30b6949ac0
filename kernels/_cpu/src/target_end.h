// Ends what target_avx2.h and its like have begun; GCC's pragma ends with the file by itself.
#if defined(__clang__)
#pragma clang attribute pop
#endif
