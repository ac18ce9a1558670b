/* SPDX-License-Identifier: Apache-2.0
 *
 * What keyquorum's arithmetic is compared with: Shamir's scheme over GF(2^8)/0x11b on 64-byte secrets, in constant
 * time, in the shape of the C library sss: bit slices, Horner, Lagrange with every product bit-sliced, 32 bytes at a
 * time as eight 32-bit planes, so two calls for 64 bytes. With -DWORD=uint64_t it takes 64 bytes at a time.
 * It takes and gives the same shares as agent/keyquorum/sharing.
 *
 *     anchor split K N       < 128 hex digits               one share of 128 hex digits a line, numbered from 1
 *     anchor combine         < lines of NUMBER HEX          the secret
 *     anchor time K N CALLS SAMPLES                         lines of "split NS" and "combine NS", NS per call
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#ifndef WORD
#define WORD uint32_t
#endif
#define LANES (8 * sizeof(WORD))
#define SIZE 64
#define MOST 255

typedef WORD planes[8];
typedef struct {
	uint8_t number, bytes[SIZE];
} share;

/* Transposes an 8x8 bit matrix held in a word (Hacker's Delight, 7-3). */
static uint64_t transpose(uint64_t x)
{
	uint64_t t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAULL;
	x ^= t ^ (t << 7);
	t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCULL;
	x ^= t ^ (t << 14);
	t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0ULL;
	return x ^ t ^ (t << 28);
}

static void slice(planes out, const uint8_t bytes[LANES])
{
	memset(out, 0, sizeof(planes));
	for (size_t group = 0; group < LANES / 8; group++) {
		uint64_t word;
		memcpy(&word, bytes + 8 * group, 8);
		word = transpose(word);
		for (int bit = 0; bit < 8; bit++)
			out[bit] |= (WORD)(word >> (8 * bit) & 0xFF) << (8 * group);
	}
}

static void unslice(uint8_t bytes[LANES], const planes in)
{
	for (size_t group = 0; group < LANES / 8; group++) {
		uint64_t word = 0;
		for (int bit = 0; bit < 8; bit++)
			word |= (uint64_t)(in[bit] >> (8 * group) & 0xFF) << (8 * bit);
		word = transpose(word);
		memcpy(bytes + 8 * group, &word, 8);
	}
}

static void broadcast(planes out, uint8_t value)
{
	for (int bit = 0; bit < 8; bit++)
		out[bit] = -(WORD)(value >> bit & 1);
}

static void add(planes into, const planes other)
{
	for (int bit = 0; bit < 8; bit++)
		into[bit] ^= other[bit];
}

/* out = a * b; out may be either of them. Written out so that the planes stay in registers: as loops it is ten times
 * slower. Doubling only renames the planes: x^8 = x^4 + x^3 + x + 1. */
#define ROW(i, p0, p1, p2, p3, p4, p5, p6, p7)                                                                         \
	r0 ^= p0 & b[i], r1 ^= p1 & b[i], r2 ^= p2 & b[i], r3 ^= p3 & b[i];                                            \
	r4 ^= p4 & b[i], r5 ^= p5 & b[i], r6 ^= p6 & b[i], r7 ^= p7 & b[i];
#define DOUBLE(p0, p2, p3, p7) p0 ^= p7, p2 ^= p7, p3 ^= p7;

static void multiply(planes out, const planes a, const planes b)
{
	WORD a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], a4 = a[4], a5 = a[5], a6 = a[6], a7 = a[7];
	WORD r0 = 0, r1 = 0, r2 = 0, r3 = 0, r4 = 0, r5 = 0, r6 = 0, r7 = 0;
	ROW(0, a0, a1, a2, a3, a4, a5, a6, a7)
	DOUBLE(a0, a2, a3, a7)
	ROW(1, a7, a0, a1, a2, a3, a4, a5, a6)
	DOUBLE(a7, a1, a2, a6)
	ROW(2, a6, a7, a0, a1, a2, a3, a4, a5)
	DOUBLE(a6, a0, a1, a5)
	ROW(3, a5, a6, a7, a0, a1, a2, a3, a4)
	DOUBLE(a5, a7, a0, a4)
	ROW(4, a4, a5, a6, a7, a0, a1, a2, a3)
	DOUBLE(a4, a6, a7, a3)
	ROW(5, a3, a4, a5, a6, a7, a0, a1, a2)
	DOUBLE(a3, a5, a6, a2)
	ROW(6, a2, a3, a4, a5, a6, a7, a0, a1)
	DOUBLE(a2, a4, a5, a1)
	ROW(7, a1, a2, a3, a4, a5, a6, a7, a0)
	out[0] = r0, out[1] = r1, out[2] = r2, out[3] = r3, out[4] = r4, out[5] = r5, out[6] = r6, out[7] = r7;
}

/* out = a^254, which is 1/a. */
static void invert(planes out, const planes a)
{
	planes power, result;
	multiply(power, a, a);
	memcpy(result, power, sizeof(planes));
	for (int step = 0; step < 6; step++) {
		multiply(power, power, power);
		multiply(result, result, power);
	}
	memcpy(out, result, sizeof(planes));
}

static void split_part(share *out, size_t at, const uint8_t secret[LANES], int threshold, int total)
{
	static uint8_t drawn[MOST][LANES];
	static planes coefficient[MOST];
	for (size_t have = 0, wanted = (size_t)(threshold - 1) * LANES; have < wanted;) {
		ssize_t got = getrandom((uint8_t *)drawn + have, wanted - have, 0);
		if (got < 0)
			abort();
		have += (size_t)got;
	}
	slice(coefficient[0], secret);
	for (int degree = 1; degree < threshold; degree++)
		slice(coefficient[degree], drawn[degree - 1]);
	for (int number = 1; number <= total; number++) {
		planes x, y;
		broadcast(x, (uint8_t)number);
		memcpy(y, coefficient[threshold - 1], sizeof(planes));
		for (int degree = threshold - 2; degree >= 0; degree--) {
			multiply(y, y, x);
			add(y, coefficient[degree]);
		}
		out[number - 1].number = (uint8_t)number;
		unslice(out[number - 1].bytes + at, y);
	}
}

static void split(share *out, const uint8_t secret[SIZE], int threshold, int total)
{
	for (size_t at = 0; at < SIZE; at += LANES)
		split_part(out, at, secret + at, threshold, total);
}

static void combine_part(uint8_t secret[LANES], const share *shares, size_t at, int count)
{
	planes sum = { 0 };
	for (int own = 0; own < count; own++) {
		planes above, below, factor, x;
		broadcast(above, 1);
		broadcast(below, 1);
		for (int other = 0; other < count; other++) {
			if (other == own)
				continue;
			broadcast(x, shares[other].number);
			multiply(above, above, x);
			broadcast(x, shares[other].number ^ shares[own].number);
			multiply(below, below, x);
		}
		invert(below, below);
		multiply(factor, above, below);
		slice(x, shares[own].bytes + at);
		multiply(factor, factor, x);
		add(sum, factor);
	}
	unslice(secret, sum);
}

static void combine(uint8_t secret[SIZE], const share *shares, int count)
{
	for (size_t at = 0; at < SIZE; at += LANES)
		combine_part(secret + at, shares, at, count);
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void measure(int threshold, int total, int calls, int samples)
{
	uint8_t secret[SIZE], again[SIZE];
	share shares[MOST];
	if (getrandom(secret, SIZE, 0) != SIZE)
		abort();
	for (int sample = 0; sample < samples; sample++) {
		double start = now();
		for (int call = 0; call < calls; call++)
			split(shares, secret, threshold, total);
		double middle = now();
		for (int call = 0; call < calls; call++)
			combine(again, shares, threshold);
		double end = now();
		if (memcmp(secret, again, SIZE) != 0)
			abort();
		printf("split %.1f\ncombine %.1f\n", (middle - start) / calls, (end - middle) / calls);
	}
}

static int read_hex(uint8_t bytes[SIZE])
{
	for (int i = 0; i < SIZE; i++)
		if (scanf("%2hhx", &bytes[i]) != 1)
			return 0;
	return 1;
}

static void print_hex(const uint8_t bytes[SIZE])
{
	for (int i = 0; i < SIZE; i++)
		printf("%02x", bytes[i]);
	printf("\n");
}

int main(int argc, char **argv)
{
	uint8_t secret[SIZE];
	share shares[MOST];
	int threshold = argc > 2 ? atoi(argv[2]) : 0, total = argc > 3 ? atoi(argv[3]) : 0, count = 0;
	if (argc > 3 && (threshold < 2 || threshold > total || total > MOST))
		return 2;
	if (argc == 6 && strcmp(argv[1], "time") == 0) {
		measure(threshold, total, atoi(argv[4]), atoi(argv[5]));
	} else if (argc == 4 && strcmp(argv[1], "split") == 0 && read_hex(secret)) {
		split(shares, secret, threshold, total);
		for (int i = 0; i < total; i++)
			print_hex(shares[i].bytes);
	} else if (argc == 2 && strcmp(argv[1], "combine") == 0) {
		while (count < MOST && scanf("%hhu", &shares[count].number) == 1 && read_hex(shares[count].bytes))
			count++;
		combine(secret, shares, count);
		print_hex(secret);
	} else {
		return 2;
	}
	return 0;
}
