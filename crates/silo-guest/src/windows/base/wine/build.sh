# Compiles Wine's server, ntdll's Linux half and the Windows libraries that we change in /build, in a root made of the
# distribution's packages. Only the folders that these need are configured: the others want generated files that the source
# package lacks.
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
# The changed ones, and those that they import.
libraries='advapi32\|kernel32\|kernelbase\|msvcrt\|ntdll\|rpcrt4\|sechost\|ucrtbase\|user32\|winecrt0'
sed -i "/^WINE_CONFIG_MAKEFILE/{/(include)\|(dlls\/\($libraries\))\|(server)\|(tools/!d}" configure.ac
autoconf --force
autoheader --force
# Named by headers, used by neither.
touch include/wine/vulkan.h include/wine/wgl.h include/wine/wgl_driver.h
for cross in x86_64-w64-mingw32 i686-w64-mingw32; do
  ln -s $cross-gcc-win32 /usr/bin/$cross-gcc
done
without=$(./configure --help | sed -n '/--without-mingw/d; s/^  \(--without-[a-z0-9]*\).*/\1/p')
./configure CFLAGS=-O2 x86_64_CFLAGS=-O2 i386_CFLAGS=-O2 --enable-archs=i386,x86_64 --disable-tests --with-mingw=gcc \
  --without-x --without-freetype $without
windows=
for image in x86_64-windows/advapi32 x86_64-windows/sechost i386-windows/advapi32 i386-windows/sechost; do
  windows="$windows dlls/${image#*/}/$image.dll"
done
# These run for seconds and are thrown away: compiled quickly.
make -j"$(nproc)" CFLAGS=-O0 tools/widl/widl tools/winebuild/winebuild tools/winegcc/winegcc tools/wrc/wrc
make -j"$(nproc)" bindir=/usr/lib/wine libdir=/usr/lib/x86_64-linux-gnu/wine prefix=/usr datadir=/usr/share/wine \
  dlls/ntdll/ntdll.so server/wineserver $windows
mkdir /build/out /build/out/x86_64-windows /build/out/i386-windows
for image in $windows; do
  cp $image /build/out/${image#dlls/*/}
done
strip -o /build/out/ntdll.so dlls/ntdll/ntdll.so
strip -o /build/out/wineserver server/wineserver
