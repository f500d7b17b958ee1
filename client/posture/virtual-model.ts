const virtualNames =
  /\b(?:qemu|kvm|vmware|virtualbox|innotek|bochs|xen|parallels|virtual machine|virtual platform|hvm domu|amazon ec2|google compute engine|openstack|standard pc|bhyve|ovirt|nutanix|droplet)/i;

/** True when firmware calls the machine by the name of something virtual. */
export function isVirtualModel(vendor: string, product: string): boolean {
  return virtualNames.test(vendor.slice(0, 256)) || virtualNames.test(product.slice(0, 256));
}
