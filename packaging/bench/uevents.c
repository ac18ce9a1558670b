/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs in an initramfs from before udev: notes when udev has announced the LUKS2 device and when it has announced the
 * mapping, then says both in one line on the console (through the kernel's log).
 *
 *     uevents UUID NAME &
 *
 * Statically linked; times are CLOCK_MONOTONIC when the message arrives here. Messages are those of udev (multicast
 * group 2: a header of libudev's, then VARIABLE=VALUE strings).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define OF_UDEV 2
#define SECONDS 300

static int has(const char *message, size_t size, const char *variable, const char *value)
{
	char line[512];
	int length = snprintf(line, sizeof line, "%s=%s", variable, value);
	return length > 0 && memmem(message, size, line, (size_t)length + 1) != NULL; /* with the NUL that ends it */
}

int main(int argc, char **argv)
{
	static char message[65536];
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = OF_UDEV };
	struct timeval patience = { .tv_sec = SECONDS };
	double seen = 0;
	int line = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT);
	if (argc != 3 || line < 0 || bind(line, (struct sockaddr *)&address, sizeof address) < 0)
		return 1;
	setsockopt(line, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	for (;;) {
		struct timespec time;
		ssize_t size = recv(line, message, sizeof message - 1, 0);
		clock_gettime(CLOCK_MONOTONIC, &time);
		double now = (double)time.tv_sec + (double)time.tv_nsec / 1e9;
		if (size <= 0)
			return 1;
		message[size++] = 0;
		if (seen == 0 && has(message, (size_t)size, "ID_FS_UUID", argv[1]))
			seen = now;
		if (has(message, (size_t)size, "DM_NAME", argv[2]) && has(message, (size_t)size, "ACTION", "change")) {
			int log = open("/dev/kmsg", O_WRONLY);
			dprintf(log, "<4>bench: device seen %.6f mapping seen %.6f\n", seen, now);
			return 0;
		}
	}
}
