/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * MSI windows: numbers and structures that softvfio has besides those of <linux/vfio.h>.
 *
 * They are softvfio's own; no Linux kernel knows them. Ask VFIO_CHECK_EXTENSION for
 * SOFTVFIO_MSI_WINDOWS before using any. docs/msi-windows.md tells how they are used.
 */
#ifndef SOFTVFIO_H
#define SOFTVFIO_H

#include <stdint.h>

/*
 * VFIO_CHECK_EXTENSION: 1 where windows can be registered. Before VFIO_SET_IOMMU: with any IOMMU of
 * the host; after it: in this container.
 */
#define SOFTVFIO_MSI_WINDOWS 0x8001

/*
 * Flag of VFIO_IOMMU_MAP_DMA and VFIO_IOMMU_UNMAP_DMA: the range is a window for MSI doorbells.
 * vaddr is ignored. READ and WRITE say what devices may do there; a doorbell needs WRITE.
 */
#define SOFTVFIO_DMA_FLAG_RESERVED_MSI_IOVA (UINT32_C(1) << 31)

/* Flag of VFIO_IOMMU_GET_INFO: MSIs are translated, and need a window to be enabled. */
#define SOFTVFIO_INFO_REQUIRE_MSI_MAP (UINT32_C(1) << 31)

/* Capabilities of VFIO_IOMMU_GET_INFO, both of version 1. */
#define SOFTVFIO_INFO_CAP_RESERVED_REGIONS 0x8001
#define SOFTVFIO_INFO_CAP_MSI_WINDOWS 0x8002

/* Kinds of reserved regions. */
#define SOFTVFIO_RESERVED_DIRECT 0           /* must stay mapped to itself */
#define SOFTVFIO_RESERVED_DIRECT_RELAXABLE 1 /* mapped to itself at boot; may be mapped over */
#define SOFTVFIO_RESERVED_RESERVED 2         /* never usable */
#define SOFTVFIO_RESERVED_MSI 3              /* the hardware's MSI range, not translated */
#define SOFTVFIO_RESERVED_SW_MSI 4           /* where the host maps doorbells */
#define SOFTVFIO_RESERVED_WINDOW 5           /* a window that the user registered */

/* The group of a region that belongs to the container. */
#define SOFTVFIO_RESERVED_GROUP_CONTAINER UINT32_C(0xffffffff)

/* One reserved region, both ends included. */
struct softvfio_reserved_region {
	uint64_t start;
	uint64_t last;
	uint32_t kind;
	uint32_t permission; /* VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE */
	uint32_t group;
	uint32_t reserved; /* 0 */
};

/*
 * Capability SOFTVFIO_INFO_CAP_RESERVED_REGIONS, on every host. Entries follow, entry_size bytes
 * apart: use that, not sizeof, since later versions may append members.
 */
struct softvfio_reserved_regions {
	uint16_t id; /* struct vfio_info_cap_header: id, version, next */
	uint16_t version;
	uint32_t next;
	uint32_t count;
	uint32_t entry_size;
};

/* One window, both ends included. */
struct softvfio_msi_window {
	uint64_t start;
	uint64_t last;
	uint32_t used_pages; /* pages with a doorbell: the largest number over domains */
	uint32_t permission; /* VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE */
};

/* Capability SOFTVFIO_INFO_CAP_MSI_WINDOWS, where windows can be registered. Windows follow. */
struct softvfio_msi_windows {
	uint16_t id; /* struct vfio_info_cap_header: id, version, next */
	uint16_t version;
	uint32_t next;
	uint32_t pages_needed; /* by the attached devices: the largest number over domains */
	uint32_t pages_host;   /* by all devices of the host: to size for hot-plug */
	uint32_t page_shift;   /* a page has 1 << page_shift bytes */
	uint32_t max_windows;
	uint32_t count;
	uint32_t reserved; /* 0 */
};

/*
 * The numbers of the proposal's sixth version, April 2016. They stand where Linux has VADDR and CAPS
 * today, so that they exclude these. The second value could not be checked against the patch.
 */
#define SOFTVFIO_V6_DMA_FLAG_MSI_RESERVED_IOVA (UINT32_C(1) << 2)
#define SOFTVFIO_V6_INFO_REQUIRE_MSI_MAP (UINT32_C(1) << 1)

#endif
