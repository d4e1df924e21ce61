/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * How a program chooses where its interrupts are written, and runs where it cannot as well: the same
 * as msi_window.rs, in C. docs/msi-windows.md explains the steps.
 *
 *   cc -static -I include -o msi_window crates/supervise/examples/msi_window.c
 *   softvfio run --host arm-smmuv3-its-user --device edu -- ./msi_window
 *
 * With --wait it then waits until the host asks for the devices back (softvfio ctl unplug).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/vfio.h>
#include <softvfio.h>

#define MOST 16
#define READ_WRITE (VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)

/* Where the program's memory is for devices: as if it were a guest's. */
#define MEMORY UINT64_C(0x100000)
#define MEMORY_SIZE UINT64_C(0x100000)

struct device {
	char name[32];
	unsigned group;
	int group_fd; /* one for all devices of a group */
	int fd;
	uint64_t bar0, config; /* where its regions begin in the file */
	int events[2], vectors;
	int request;
};

static volatile uint32_t *memory;

static void die(const char *who, const char *what)
{
	fprintf(stderr, "msi_window: %s: %s: %s\n", who, what, strerror(errno));
	exit(1);
}

static void fail(const char *who, const char *what)
{
	fprintf(stderr, "msi_window: %s: %s\n", who, what);
	exit(1);
}

/* The last part of a link's target. */
static const char *link_name(const char *device, const char *link, char *to, size_t size)
{
	char path[512];
	ssize_t len;

	snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", device, link);
	len = readlink(path, to, size - 1);
	if (len < 0)
		return "";
	to[len] = 0;
	return strrchr(to, '/') ? strrchr(to, '/') + 1 : to;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct device *)a)->name, ((const struct device *)b)->name);
}

/* The PCI functions that vfio-pci has. */
static int find_devices(struct device *found)
{
	DIR *all = opendir("/sys/bus/pci/devices");
	struct dirent *entry;
	char target[512];
	int count = 0;

	if (!all)
		die("/sys/bus/pci/devices", "opendir");
	while ((entry = readdir(all)) && count < MOST) {
		struct device *d = &found[count];

		if (strcmp(link_name(entry->d_name, "driver", target, sizeof target), "vfio-pci"))
			continue;
		memset(d, 0, sizeof *d);
		snprintf(d->name, sizeof d->name, "%.31s", entry->d_name);
		d->group = atoi(link_name(entry->d_name, "iommu_group", target, sizeof target));
		d->request = -1;
		count++;
	}
	closedir(all);
	qsort(found, count, sizeof *found, by_name);
	return count;
}

/* VFIO_IOMMU_GET_INFO with its capabilities, however long. */
static struct vfio_iommu_type1_info *get_info(int container)
{
	struct vfio_iommu_type1_info *info = NULL;
	uint32_t size = sizeof *info;

	for (;;) {
		info = realloc(info, size);
		memset(info, 0, size);
		info->argsz = size;
		if (ioctl(container, VFIO_IOMMU_GET_INFO, info))
			die("container", "VFIO_IOMMU_GET_INFO");
		if (info->argsz <= size)
			return info;
		size = info->argsz;
	}
}

static const void *capability(const struct vfio_iommu_type1_info *info, unsigned id)
{
	uint32_t at = info->flags & VFIO_IOMMU_INFO_CAPS ? info->cap_offset : 0;

	while (at) {
		const struct vfio_info_cap_header *cap = (const void *)((const char *)info + at);

		if (cap->id == id)
			return cap;
		at = cap->next;
	}
	return NULL;
}

static void print_info(const struct vfio_iommu_type1_info *info)
{
	static const char *const kinds[] = {"direct", "direct-relaxable", "reserved", "msi", "sw-msi", "window"};
	const struct softvfio_reserved_regions *regions = capability(info, SOFTVFIO_INFO_CAP_RESERVED_REGIONS);
	const struct softvfio_msi_windows *windows = capability(info, SOFTVFIO_INFO_CAP_MSI_WINDOWS);
	int required = !!(info->flags & SOFTVFIO_INFO_REQUIRE_MSI_MAP);

	printf("interrupts need a window: %s\n", required ? "yes" : "no");
	for (uint32_t n = 0; regions && n < regions->count; n++) {
		const struct softvfio_reserved_region *r =
			(const void *)((const char *)(regions + 1) + (size_t)n * regions->entry_size);

		printf("reserved %#llx-%#llx %s, group %u\n", (unsigned long long)r->start,
		       (unsigned long long)r->last, r->kind < 6 ? kinds[r->kind] : "unknown", r->group);
	}
	if (required && windows)
		printf("pages needed: %u for what is attached, %u for all of the host, %u bytes each; "
		       "windows allowed: %u\n",
		       windows->pages_needed, windows->pages_host, 1u << windows->page_shift,
		       windows->max_windows);
}

/* The lowest address with so much room above our memory (as a guest would have it, from 0 on). */
static uint64_t find_room(const struct vfio_iommu_type1_info *info, uint64_t size, uint64_t align)
{
	const struct vfio_iommu_type1_info_cap_iova_range *cap =
		capability(info, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE);

	for (uint32_t n = 0; cap && n < cap->nr_iovas; n++) {
		uint64_t at = cap->iova_ranges[n].start;

		if (at < MEMORY + MEMORY_SIZE)
			at = MEMORY + MEMORY_SIZE;
		at = (at + align - 1) & ~(align - 1);
		if (at >= cap->iova_ranges[n].start && at + (size - 1) >= at &&
		    at + (size - 1) <= cap->iova_ranges[n].end)
			return at;
	}
	fail("container", "no room for a window");
	return 0;
}

static int map_dma(int container, uint32_t flags, const volatile void *vaddr, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof map, .flags = flags, .vaddr = (uintptr_t)vaddr, .iova = iova, .size = size};

	return ioctl(container, VFIO_IOMMU_MAP_DMA, &map);
}

/* Returns the bytes that were unmapped, or -1. */
static int64_t unmap_dma(int container, uint32_t flags, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof unmap, .flags = flags, .iova = iova, .size = size};

	return ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) ? -1 : (int64_t)unmap.size;
}

static uint64_t region(const struct device *d, unsigned index)
{
	struct vfio_region_info info = {.argsz = sizeof info, .index = index};

	if (ioctl(d->fd, VFIO_DEVICE_GET_REGION_INFO, &info))
		die(d->name, "VFIO_DEVICE_GET_REGION_INFO");
	return info.offset;
}

static uint32_t peek(const struct device *d, uint64_t at)
{
	uint32_t value;

	if (pread(d->fd, &value, sizeof value, at) != sizeof value)
		die(d->name, "pread");
	return value;
}

static void poke(const struct device *d, uint64_t at, uint64_t value, size_t bytes)
{
	if (pwrite(d->fd, &value, bytes, at) != (ssize_t)bytes)
		die(d->name, "pwrite");
}

/* Eventfds for the vectors from 0 on. */
static int set_irqs(const struct device *d, unsigned index, const int *fds, unsigned count)
{
	union {
		struct vfio_irq_set set;
		char bytes[sizeof(struct vfio_irq_set) + 2 * sizeof(int)];
	} arg = {.set = {.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER}};

	arg.set.argsz = sizeof arg.set + count * sizeof(int);
	arg.set.index = index;
	arg.set.count = count;
	memcpy(arg.set.data, fds, count * sizeof(int));
	return ioctl(d->fd, VFIO_DEVICE_SET_IRQS, &arg);
}

static void open_device(struct device *d)
{
	int event = eventfd(0, EFD_CLOEXEC);

	d->fd = ioctl(d->group_fd, VFIO_GROUP_GET_DEVICE_FD, d->name);
	if (d->fd < 0)
		die(d->name, "VFIO_GROUP_GET_DEVICE_FD");
	d->bar0 = region(d, VFIO_PCI_BAR0_REGION_INDEX);
	d->config = region(d, VFIO_PCI_CONFIG_REGION_INDEX);
	/* Memory decoding and bus mastering: without the latter not even MSIs leave the device. */
	poke(d, d->config + 4, (peek(d, d->config + 4) & 0xffff) | 6, 2);
	/* The host asks with this interrupt for the device back. */
	if (!set_irqs(d, VFIO_PCI_REQ_IRQ_INDEX, &event, 1))
		d->request = event;
}

/* MSI-X if it has that, or else MSI; at most two vectors. */
static void enable(struct device *d)
{
	static const struct {
		unsigned index;
		const char *name;
	} kinds[] = {{VFIO_PCI_MSIX_IRQ_INDEX, "MSI-X"}, {VFIO_PCI_MSI_IRQ_INDEX, "MSI"}};

	for (unsigned k = 0; k < 2; k++) {
		struct vfio_irq_info info = {.argsz = sizeof info, .index = kinds[k].index};

		if (ioctl(d->fd, VFIO_DEVICE_GET_IRQ_INFO, &info))
			die(d->name, "VFIO_DEVICE_GET_IRQ_INFO");
		if (!info.count)
			continue;
		d->vectors = info.count < 2 ? 1 : 2;
		for (int n = 0; n < d->vectors; n++)
			d->events[n] = eventfd(0, EFD_CLOEXEC);
		if (set_irqs(d, kinds[k].index, d->events, d->vectors))
			die(d->name, kinds[k].name);
		printf("%s: %s enabled, vectors: %d\n", d->name, kinds[k].name, d->vectors);
		return;
	}
	fail(d->name, "neither MSI nor MSI-X");
}

/* Waits until an eventfd is signalled, and reads it back to 0. */
static int wait_for(int event, int milliseconds)
{
	struct pollfd poll_fd = {.fd = event, .events = POLLIN};
	uint64_t count;

	return poll(&poll_fd, 1, milliseconds) == 1 && read(event, &count, sizeof count) == sizeof count;
}

static void arrived(const struct device *d, int vector, const char *why)
{
	if (!wait_for(d->events[vector], 10000))
		fail(d->name, "the interrupt did not come");
	printf("%s: vector %d: %s\n", d->name, vector, why);
}

static void edu(const struct device *d)
{
	const uint64_t steps[2][3] = {{MEMORY, 0x40000, 1}, {0x40000, MEMORY + 64, 7}};

	poke(d, d->bar0 + 0x60, 1, 4);
	arrived(d, 0, "told to");
	poke(d, d->bar0 + 0x64, 1, 4);
	/* 4 bytes of memory into its buffer and back beside them, with an interrupt at the end. */
	memory[0] = 0x5eedcafe;
	for (int n = 0; n < 2; n++) {
		poke(d, d->bar0 + 0x80, steps[n][0], 8);
		poke(d, d->bar0 + 0x88, steps[n][1], 8);
		poke(d, d->bar0 + 0x90, 4, 8);
		poke(d, d->bar0 + 0x98, steps[n][2], 8);
	}
	arrived(d, 0, "end of a DMA");
	poke(d, d->bar0 + 0x64, 0x100, 4);
	if (memory[16] != 0x5eedcafe)
		fail(d->name, "the DMA went wrong");
}

/* The controller is started, and identifies itself: one command, one interrupt. */
static void nvme(const struct device *d)
{
	enum { SUBMISSION = 0x1000, COMPLETION = 0x2000, DATA = 0x3000 };
	volatile uint32_t *command = memory + SUBMISSION / 4;

	poke(d, d->bar0 + 0x14, 0, 4); /* CC: off */
	while (peek(d, d->bar0 + 0x1c) & 1)
		;
	poke(d, d->bar0 + 0x24, 0x000f000f, 4); /* AQA: 16 entries each */
	poke(d, d->bar0 + 0x28, MEMORY + SUBMISSION, 8);
	poke(d, d->bar0 + 0x30, MEMORY + COMPLETION, 8);
	poke(d, d->bar0 + 0x14, 0x00460001, 4); /* CC: entries of 64 and 16 bytes, on */
	while (!(peek(d, d->bar0 + 0x1c) & 1))
		;
	for (int n = 0; n < 16; n++)
		command[n] = 0;
	command[0] = 0x00010006;    /* Identify, command 1 */
	command[6] = MEMORY + DATA; /* PRP1 */
	command[10] = 1;            /* of the controller */
	poke(d, d->bar0 + 0x1000, 1, 4);
	arrived(d, 0, "Identify completed");
	poke(d, d->bar0 + 0x1004, 1, 4);
	if (memory[COMPLETION / 4 + 3] >> 17)
		fail(d->name, "Identify failed");
}

static void work(const struct device *d)
{
	uint32_t identity = peek(d, d->config);

	if (identity == 0x11e81234) {
		edu(d);
	} else if (identity == 0x11e91234) {
		for (int n = 0; n < d->vectors; n++) {
			poke(d, d->bar0 + 0x60, n, 4);
			arrived(d, n, "told to");
		}
	} else if (peek(d, d->config + 8) >> 16 == 0x0108) {
		nvme(d);
	} else {
		printf("%s: %08x is not known here\n", d->name, identity);
	}
}

int main(int argc, char **argv)
{
	int wait = argc > 1 && !strcmp(argv[1], "--wait");
	struct device devices[MOST];
	int count = find_devices(devices);
	int container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	struct vfio_iommu_type1_info *info;
	uint64_t first = 0, size = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (container < 0)
		die("/dev/vfio/vfio", "open");
	/* 1. Ask. Before VFIO_SET_IOMMU: can windows be registered with any IOMMU here? */
	printf("windows on this host: %s\n",
	       ioctl(container, VFIO_CHECK_EXTENSION, SOFTVFIO_MSI_WINDOWS) == 1 ? "yes" : "no");
	if (!count)
		fail("sysfs", "no device is bound to vfio-pci");
	for (int n = 0; n < count; n++) {
		char path[64];
		int known = 0;

		while (devices[known].group != devices[n].group)
			known++;
		devices[n].group_fd = devices[known].group_fd;
		if (known != n)
			continue;
		snprintf(path, sizeof path, "/dev/vfio/%u", devices[n].group);
		devices[n].group_fd = open(path, O_RDWR | O_CLOEXEC);
		if (devices[n].group_fd < 0)
			die(path, "open");
		if (ioctl(devices[n].group_fd, VFIO_GROUP_SET_CONTAINER, &container))
			die(path, "VFIO_GROUP_SET_CONTAINER");
		if (!n && ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
			die("container", "VFIO_SET_IOMMU");
		printf("%s: group %u is in the container\n", devices[n].name, devices[n].group);
	}

	/* The program's memory, for devices. */
	memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("memory", "mmap");
	if (map_dma(container, READ_WRITE, memory, MEMORY, MEMORY_SIZE))
		die("memory", "VFIO_IOMMU_MAP_DMA");

	/* 2. Look. */
	info = get_info(container);
	print_info(info);

	/* 3., 4. Size and register, where nothing of ours is. */
	if (info->flags & SOFTVFIO_INFO_REQUIRE_MSI_MAP) {
		const struct softvfio_msi_windows *windows = capability(info, SOFTVFIO_INFO_CAP_MSI_WINDOWS);
		uint64_t pages = windows && windows->pages_needed ? windows->pages_needed : 1;
		unsigned shift = windows ? windows->page_shift : 12;

		size = pages << shift;
		first = find_room(info, size, UINT64_C(1) << shift);
		if (map_dma(container, SOFTVFIO_DMA_FLAG_RESERVED_MSI_IOVA | READ_WRITE, NULL, first, size))
			die("window", "VFIO_IOMMU_MAP_DMA");
		printf("window %#llx-%#llx registered\n", (unsigned long long)first,
		       (unsigned long long)(first + size - 1));
	}
	free(info);

	/* 5. Enable, and take interrupts. */
	for (int n = 0; n < count; n++) {
		open_device(&devices[n]);
		enable(&devices[n]);
		work(&devices[n]);
	}
	if (size) {
		const struct softvfio_msi_windows *windows;
		const struct softvfio_msi_window *window;
		unsigned used = 0;

		info = get_info(container);
		windows = capability(info, SOFTVFIO_INFO_CAP_MSI_WINDOWS);
		window = (const void *)(windows + 1);
		for (uint32_t n = 0; windows && n < windows->count; n++)
			used += window[n].used_pages;
		free(info);
		printf("%u pages of the window hold a doorbell\n", used);
		if (unmap_dma(container, SOFTVFIO_DMA_FLAG_RESERVED_MSI_IOVA, first, size) < 0)
			printf("removing it now: %s (os error %d)\n", strerror(errno), errno);
		else
			printf("removing it now: done\n");
	}
	for (int n = 0; wait && n < count; n++) {
		if (devices[n].request < 0)
			fail(devices[n].name, "the device has no REQ interrupt");
		printf("%s: waiting until the host asks for it\n", devices[n].name);
		wait_for(devices[n].request, -1);
		printf("%s: the host asks for it; closing it\n", devices[n].name);
		close(devices[n].fd);
		devices[n].fd = -1;
	}

	/* 7. Devices are closed, which gives the doorbells back; then the window can go. */
	for (int n = 0; n < count; n++)
		if (devices[n].fd >= 0)
			close(devices[n].fd);
	if (size) {
		int64_t removed = unmap_dma(container, SOFTVFIO_DMA_FLAG_RESERVED_MSI_IOVA, first, size);

		/* The group of a device that was unplugged took the IOMMU along, and windows with it. */
		if (removed >= 0)
			printf("%#llx bytes of windows removed\n", (unsigned long long)removed);
		else if (wait)
			printf("the windows are gone (%s (os error %d))\n", strerror(errno), errno);
		else
			die("window", "VFIO_IOMMU_UNMAP_DMA");
	}
	return 0;
}
