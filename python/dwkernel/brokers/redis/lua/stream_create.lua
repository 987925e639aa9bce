-- Makes a stream. KEYS: those of the stream. ARGV: its uid, then names and values of its settings. Returns
-- 'ok', or 'stream.exists'. Done again with the same uid it is there already.

local uid = redis.call('HGET', KEYS[1], 'uid')
if uid then
  return { uid == ARGV[1] and 'ok' or 'stream.exists' }
end
redis.call('HSET', KEYS[1], 'last', 0, 'time', number(NOW_US), 'bytes', 0, 'delayed', 0, 'bell', 0, 'uid', unpack(ARGV))
ring(stream_at(0, ARGV[1]))
return { 'ok' }
