/**
 * The app of the bench. A connection's first byte says what it wants:
 *   'U'                  upload: read to the end, then answer the byte count (8 bytes) and end
 *   'D' + seconds (f64)  download: send for that long, then end
 *   'E'                  echo: every byte comes back
 *
 *   traffic-server.ts [HOST]     listens there, on loopback by default, and prints its port
 */
import { createServer, type AddressInfo, type Socket } from 'node:net';

const chunk = Buffer.alloc(256 * 1024, 0x5a);

function upload(socket: Socket, first: Buffer): void {
  let count = BigInt(first.length);
  socket.on('data', (data) => (count += BigInt(data.length)));
  socket.once('end', () => {
    const answer = Buffer.alloc(8);
    answer.writeBigUInt64BE(count);
    socket.end(answer);
  });
}

function download(socket: Socket, seconds: number): void {
  const endAt = performance.now() + seconds * 1_000;
  const more = (): void => {
    while (performance.now() < endAt) {
      if (!socket.write(chunk)) {
        socket.once('drain', more);
        return;
      }
    }
    socket.end();
  };
  more();
}

const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  socket.on('error', () => socket.destroy());
  socket.once('data', (data: Buffer) => {
    const kind = String.fromCharCode(data[0] ?? 0);
    if (kind === 'U') upload(socket, data.subarray(1));
    else if (kind === 'D') download(socket, data.readDoubleBE(1));
    else {
      socket.write(data.subarray(1));
      socket.on('data', (more) => socket.write(more));
      socket.once('end', () => socket.end());
    }
  });
});
server.listen(0, process.argv[2] ?? '127.0.0.1', () => {
  console.log((server.address() as AddressInfo).port);
});
process.on('disconnect', () => process.exit(0));
process.stdin.on('end', () => process.exit(0)).resume();
