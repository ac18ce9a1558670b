/* SPDX-License-Identifier: Apache-2.0 */
/* A PKCS#11 module that is SoftHSM2 with one oddity, chosen by ODD: what other tokens do, or what a bad one might. */
#define CRYPTOKI_COMPAT 1
#include <dlfcn.h>
#include <fcntl.h>
#include <p11-kit/pkcs11.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static CK_FUNCTION_LIST list, *real;

static int odd(const char *name)
{
	const char *chosen = getenv("ODD");
	return chosen && strcmp(chosen, name) == 0;
}

static CK_RV get_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
	CK_RV answer = real->C_GetTokenInfo(slot, info);
	if (odd("final-try"))
		info->flags |= CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_COUNT_LOW;
	if (odd("locked"))
		info->flags |= CKF_USER_PIN_LOCKED;
	if (odd("keypad"))
		info->flags |= CKF_PROTECTED_AUTHENTICATION_PATH;
	if (odd("hostile-label"))
		memcpy(info->label, "\x1b[2J\xff\x07", 6);
	if (odd("unreadable"))
		return CKR_DEVICE_ERROR;
	return answer;
}

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG size)
{
	if (odd("keypad")) {
		if (pin || size)
			return CKR_ARGUMENTS_BAD;
		pin = (CK_UTF8CHAR *)getenv("KEYPAD");
		size = strlen((char *)pin);
	}
	if (odd("expired"))
		return CKR_PIN_EXPIRED;
	if (odd("slow")) {
		close(creat(getenv("ENTERED"), 0600));
		while (access(getenv("GATE"), F_OK))
			usleep(10000);
	}
	return real->C_Login(session, user, pin, size);
}

static CK_RV find_objects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *found, CK_ULONG room, CK_ULONG *count)
{
	CK_RV answer = real->C_FindObjects(session, found, room, count);
	if (odd("count"))
		*count = 1000000;
	return answer;
}

static CK_RV get_attribute_value(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *rows, CK_ULONG count)
{
	CK_RV answer = real->C_GetAttributeValue(session, object, rows, count);
	if (odd("sizes") && !rows->pValue)
		rows->ulValueLen = 1UL << 40;
	if (odd("growing") && rows->pValue)
		rows->ulValueLen += 4096;
	if (odd("bare-point") && rows->type == CKA_EC_POINT && rows->pValue && !answer) {
		memmove(rows->pValue, (char *)rows->pValue + 2, rows->ulValueLen - 2);
		rows->ulValueLen -= 2;
	}
	return answer;
}

static CK_RV decrypt(CK_SESSION_HANDLE session, CK_BYTE *sealed, CK_ULONG size, CK_BYTE *data, CK_ULONG *length)
{
	CK_RV answer = real->C_Decrypt(session, sealed, size, data, length);
	if (odd("removed"))
		return CKR_DEVICE_REMOVED;
	if (odd("liar") && data)
		data[0] ^= 1;
	if (odd("length"))
		*length = 1UL << 40;
	return answer;
}

static CK_RV derive_key(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key, CK_ATTRIBUTE *rows,
			CK_ULONG count, CK_OBJECT_HANDLE *derived)
{
	CK_ECDH1_DERIVE_PARAMS *parameters = mechanism->pParameter;
	if (odd("der-point") && parameters->pPublicData[1] != parameters->ulPublicDataLen - 2)
		return CKR_MECHANISM_PARAM_INVALID;
	return real->C_DeriveKey(session, mechanism, key, rows, count, derived);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **functions)
{
	void *library = dlopen(SOFTHSM, RTLD_NOW | RTLD_LOCAL);
	CK_C_GetFunctionList entry = library ? (CK_C_GetFunctionList)dlsym(library, "C_GetFunctionList") : NULL;
	if (!entry || odd("broken"))
		return CKR_GENERAL_ERROR;
	if (entry(&real) != CKR_OK)
		return CKR_GENERAL_ERROR;
	list = *real;
	list.C_GetTokenInfo = get_token_info;
	list.C_Login = login;
	list.C_FindObjects = find_objects;
	list.C_GetAttributeValue = get_attribute_value;
	list.C_Decrypt = decrypt;
	list.C_DeriveKey = derive_key;
	if (odd("incomplete"))
		list.C_DeriveKey = NULL;
	*functions = &list;
	return CKR_OK;
}
