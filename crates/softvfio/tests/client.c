/*
 * A VFIO client by nothing but linux/vfio.h, to be linked statically: threads, a fork, DMA through
 * edu (0000:01:00.0, group 1), identification of nvme (0000:02:00.0, group 2).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                              \
	do {                                                                              \
		if (!(condition)) {                                                           \
			fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, strerror(errno)); \
			exit(1);                                                                  \
		}                                                                             \
	} while (0)

static int container;

static int map(void *memory, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)memory,
		.iova = iova,
		.size = size,
	};
	return ioctl(container, VFIO_IOMMU_MAP_DMA, &map);
}

static uint64_t unmap(uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap), .iova = iova, .size = size,
	};
	CHECK(ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) == 0);
	return unmap.size;
}

static void *maps(void *argument)
{
	uint64_t iova = (uint64_t)(uintptr_t)argument << 20;
	void *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(memory != MAP_FAILED);
	for (int round = 0; round < 100; round++) {
		CHECK(map(memory, iova, 8192) == 0);
		CHECK(map(memory, iova + 4096, 4096) == -1 && errno == EEXIST);
		CHECK(ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) == 1);
		CHECK(unmap(iova, 8192) == 8192);
	}
	return NULL;
}

static int open_group(const char *path)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	int group = open(path, O_RDWR);

	CHECK(group >= 0);
	CHECK(ioctl(group, VFIO_GROUP_GET_STATUS, &status) == 0);
	CHECK(status.flags == VFIO_GROUP_FLAGS_VIABLE);
	CHECK(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) == 0);
	return group;
}

static uint64_t region(int device, uint32_t index)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };

	CHECK(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info) == 0);
	return info.offset;
}

static void put(int edu, uint64_t at, uint64_t value, size_t len)
{
	CHECK(pwrite(edu, &value, len, region(edu, 0) + at) == (ssize_t)len);
}

static void transfer(int edu, int event, uint64_t from, uint64_t to, uint64_t command)
{
	uint64_t count;

	put(edu, 0x80, from, 8);
	put(edu, 0x88, to, 8);
	put(edu, 0x90, 4096, 8);
	put(edu, 0x98, command | 1 | 4, 8);
	CHECK(read(event, &count, 8) == 8 && count == 1);
	put(edu, 0x64, 0x100, 4);
}

int main(void)
{
	char irqs[sizeof(struct vfio_irq_set) + sizeof(int)] = { 0 };
	struct vfio_irq_set *set = (void *)irqs;
	struct vfio_device_info info = { .argsz = sizeof(info) };
	int groups[2], edu, nvme, event, status;
	uint16_t command = 6;
	uint32_t id;
	pthread_t threads[8];
	char *memory;
	pid_t child;

	container = open("/dev/vfio/vfio", O_RDWR);
	CHECK(container >= 0);
	CHECK(ioctl(container, VFIO_GET_API_VERSION) == VFIO_API_VERSION);
	groups[0] = open_group("/dev/vfio/1");
	groups[1] = open_group("/dev/vfio/2");
	CHECK(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0);
	edu = ioctl(groups[0], VFIO_GROUP_GET_DEVICE_FD, "0000:01:00.0");
	nvme = ioctl(groups[1], VFIO_GROUP_GET_DEVICE_FD, "0000:02:00.0");
	CHECK(edu >= 0 && nvme >= 0);
	CHECK(ioctl(nvme, VFIO_DEVICE_GET_INFO, &info) == 0 && info.num_irqs == VFIO_PCI_NUM_IRQS);
	CHECK(pread(edu, &id, 4, region(edu, VFIO_PCI_CONFIG_REGION_INDEX)) == 4 && id == 0x11e81234);
	CHECK(pwrite(edu, &command, 2, region(edu, VFIO_PCI_CONFIG_REGION_INDEX) + 4) == 2);

	for (uintptr_t n = 0; n < 8; n++)
		CHECK(pthread_create(&threads[n], NULL, maps, (void *)(n + 16)) == 0);
	child = fork();
	if (child == 0) {
		maps((void *)64);
		_exit(0);
	}
	for (int n = 0; n < 8; n++)
		CHECK(pthread_join(threads[n], NULL) == 0);
	CHECK(waitpid(child, &status, 0) == child && status == 0);

	event = eventfd(0, EFD_CLOEXEC);
	set->argsz = sizeof(irqs);
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = VFIO_PCI_MSI_IRQ_INDEX;
	set->count = 1;
	memcpy(set->data, &event, sizeof(int));
	CHECK(ioctl(edu, VFIO_DEVICE_SET_IRQS, set) == 0);
	memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED && map(memory, 0x100000, 8192) == 0);
	memset(memory, 'c', 4096);
	transfer(edu, event, 0x100000, 0x40000, 0);
	transfer(edu, event, 0x40000, 0x101000, 2);
	CHECK(memcmp(memory, memory + 4096, 4096) == 0);
	CHECK(ioctl(edu, VFIO_DEVICE_RESET) == 0 || errno == ENOTTY || errno == EINVAL);
	CHECK(unmap(0x100000, 8192) == 8192);
	puts("done");
	return 0;
}
