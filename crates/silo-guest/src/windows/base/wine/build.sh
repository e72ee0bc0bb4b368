# Compiles Wine's server and ntdll's Linux half in /build, in a root made of the distribution's packages.
# Only the folders that these two need are configured: the others want generated files that the source package lacks.
set -e
export PATH=/usr/bin HOME=/tmp LC_ALL=C SOURCE_DATE_EPOCH=1
mkdir -p /build/wine
cd /build/wine
tar --extract --strip-components=1 --file ../wine_*.orig.tar.xz
tar --extract --file ../wine_*.debian.tar.xz
for name in $(grep -v '^#' debian/patches/series); do
  patch --quiet --strip=1 <debian/patches/$name
done
for own in ../patches/*.patch; do
  patch --quiet --strip=1 --fuzz=0 <$own
done
perl tools/make_requests
perl tools/make_specfiles
printf '#!/bin/sh\necho x86_64-pc-linux-gnu\n' >tools/config.guess
cp tools/config.guess tools/config.sub
chmod +x tools/config.guess tools/config.sub
sed -i '/^WINE_CONFIG_MAKEFILE/{/(include)\|(dlls\/ntdll)\|(server)\|(tools/!d}' configure.ac
autoconf --force
autoheader --force
# Named by headers, used by neither.
touch include/wine/vulkan.h include/wine/wgl.h include/wine/wgl_driver.h
without=$(./configure --help | sed -n 's/^  \(--without-[a-z0-9-]*\).*/\1/p')
./configure CFLAGS=-O2 --enable-win64 --disable-tests --without-mingw --without-x --without-freetype $without
make -j"$(nproc)" bindir=/usr/lib/wine libdir=/usr/lib/x86_64-linux-gnu/wine prefix=/usr datadir=/usr/share/wine \
  dlls/ntdll/ntdll.so server/wineserver
mkdir /build/out
strip -o /build/out/ntdll.so dlls/ntdll/ntdll.so
strip -o /build/out/wineserver server/wineserver
