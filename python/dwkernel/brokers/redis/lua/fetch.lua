-- Hands messages out: first those that are due again, longest due first, then new ones in their order.
--
-- KEYS: those of the stream and of the consumer. ARGV: uid, the consumer's uid, lane, call, limit, whose they
-- are then. Returns 'ok', the deliveries (number, deliveries that count, deliveries ever, fields), how many
-- milliseconds until something is due (-1: nothing is), behind which number a new message is awaited (-1: none
-- can be handed out), the bell's count, and 1 if there is more to look at.

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
local c = consumer_at(STREAM_KEYS, ARGV[2])
if not c then
  return NO_CONSUMER
end
local lane, call, limit, owner = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local handed, bytes = {}, 0

local function hand(sequence, held, fields)
  handed[#handed + 1] = { sequence, held.total - held.before, held.total, fields }
  bytes = bytes + size_of(fields)
end

local function answer(wait, watch, more)
  local bell = tonumber(redis.call('HGET', s.info, 'bell'))
  return { 'ok', handed, wait, watch, bell, more }
end

local before = recall(s, lane, call)
if before then
  if before[1] == 'stale' then
    return before
  end
  -- The answer was lost: the same ones again, unless their time is over.
  for _, one in ipairs(before) do
    local held, fields = state_of(c, one[1]), #handed < limit and message_of(s, one[1])
    if c.ack == 'none' and fields then
      hand(one[1], { total = 1, before = 0 }, fields)
    elseif held and held.flag == 'O' and held.total == one[2] and fields then
      hand(one[1], held, fields)
    end
  end
  return answer(0, -1, 1)
end

go_on(s)
local wait = tend(s)
local watch, more = -1, 0

local function redeliver()
  -- A message that expires may be due at once: so each is looked at twice at most.
  for _ = 1, 2 * (limit + SCAN_MAX) do
    local first = redis.call('ZRANGEBYSCORE', c.times, '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, 1)
    if #handed >= limit or bytes >= FETCH_BYTES_MAX or not first[1] then
      return
    end
    local sequence, time = tonumber(first[1]), tonumber(first[2])
    local held = state_of(c, sequence)
    if held.flag == 'O' then
      finish(s, c, sequence, held, time, 'expired', nil)
    else
      local fields = message_of(s, sequence)
      if fields then
        held.total, held.flag, held.owner = held.total + 1, 'O', owner
        hold(c, sequence, held, NOW + c.ack_wait)
        hand(sequence, held, fields)
      else
        forget(c, { sequence })
      end
    end
  end
  more = 1
end

local function keep_new(sequences)
  if #sequences == 0 then
    return
  end
  c.top = math.max(c.top, sequences[#sequences])
  if c.ack == 'none' then
    count(c, 'acknowledged', #sequences)
    return
  end
  local held, times, states = {}, {}, {}
  local line = line_of({ total = 1, before = 0, first = number(NOW), flag = 'O', owner = owner, history = '' })
  for _, sequence in ipairs(sequences) do
    local name = number(sequence)
    held[#held + 1], held[#held + 2] = name, name
    times[#times + 1], times[#times + 2] = number(NOW + c.ack_wait), name
    states[#states + 1], states[#states + 2] = name, line
  end
  redis.call('ZADD', c.held, unpack(held))
  redis.call('ZADD', c.times, unpack(times))
  redis.call('HSET', c.state, unpack(states))
end

local function deliver_new()
  local wants = matcher_of(c.subjects)
  local most = math.min(limit - #handed, c.ack == 'none' and limit or room(c))
  local taken, looked = {}, 0
  while #taken < most and bytes < FETCH_BYTES_MAX do
    -- Without a filter each one that is looked at is handed out: none is read in vain.
    local step = #c.subjects > 0 and STEP or math.min(STEP, most - #taken)
    local found = redis.call('XRANGE', s.messages, id_of(c.cursor + 1), '+', 'COUNT', step)
    for _, entry in ipairs(found) do
      if #taken < most and bytes < FETCH_BYTES_MAX then
        c.cursor = sequence_of(entry[1])
        if wants(entry[2]) then
          taken[#taken + 1] = c.cursor
          hand(c.cursor, { total = 1, before = 0 }, entry[2])
        end
      end
    end
    looked = looked + #found
    if #found < step then
      break
    end
    if looked >= SCAN_MAX + limit then
      more = 1
      break
    end
  end
  keep_new(taken)
end

if not c.paused then
  redeliver()
  deliver_new()
  local first = redis.call('ZRANGE', c.times, 0, 0, 'WITHSCORES')[2]
  if first then
    local due = math.max(1, tonumber(first) - NOW)
    wait = wait < 0 and due or math.min(wait, due)
  end
  if c.ack == 'none' or room(c) > 0 then
    watch = c.cursor
  end
end
if #handed > 0 then
  count(c, 'deliveries', #handed)
end
save_consumer(s, c)
local told = {}
for at, one in ipairs(handed) do
  told[at] = { one[1], one[3] }
end
if #told > 0 then
  remember(s, lane, call, told)
end
return answer(wait, watch, more)
